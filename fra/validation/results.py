"""Judges tables by rules with Great Expectations, and tells in words what was found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from numpy.typing import NDArray

from fra.validation.rules.rule import Rule, Table

Frames = Mapping[Table, pd.DataFrame]
"""The tables that rules look at (`fra.validation.tables`); each has the column `source`: what to call a row."""


@dataclass(frozen=True)
class Found:
    """What a rule found: the rows that break it (none for rules on a table as a whole).

    `judged` is false where its table is not there: no reference to drift from, no batch of a set that is not trained
    on. `result` is Great Expectations' own.
    """

    rule: Rule
    success: bool = True
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    judged: bool = False
    result: Any = None


def judge_tables(frames: Frames, rules: Sequence[Rule]) -> list[Found]:
    """Judges each table by its rules; one finding a rule, in their order.

    Raises:
        ValueError: a rule names a column that its table does not have, or cannot be evaluated.
    """
    found: dict[str, Found] = {}
    for table in dict.fromkeys(rule.table for rule in rules):
        chosen = [rule for rule in rules if rule.table == table]
        frame = frames.get(table, pd.DataFrame())
        judged = [Found(rule) for rule in chosen] if frame.empty else judge_table(table, frame, chosen)
        found |= {one.rule.name: one for one in judged}
    return [found[rule.name] for rule in rules]


def judge_table(table: str, frame: pd.DataFrame, rules: Sequence[Rule]) -> list[Found]:
    """Judges one table by its rules. Raises ValueError."""
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it tells of temporary folders
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for rule in rules:
        rule.expectation.meta = {"rule": rule.name, "severity": rule.severity}
        rule.expectation.notes = f"**{rule.name}** ({rule.severity}): fails where {rule.reason}."
    asset = context.data_sources.add_pandas("gate").add_dataframe_asset(table)
    result = (
        asset.add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": frame})
        .validate(
            gx.ExpectationSuite(name=table, expectations=[rule.expectation for rule in rules]),
            result_format={
                "result_format": "COMPLETE",
                "partial_unexpected_count": 5,
                "exclude_unexpected_values": True,
                "return_unexpected_index_query": False,
            },
        )
    )
    outcomes: dict[str, Any] = {
        outcome.expectation_config.meta["rule"]: outcome
        for outcome in result.results
        if outcome.expectation_config is not None and outcome.expectation_config.meta is not None
    }
    return [found(rule, outcomes[rule.name]) for rule in rules]


def found(rule: Rule, outcome: Any) -> Found:
    """Great Expectations' result of one rule, in our terms. Raises ValueError."""
    if not outcome.success and not outcome.result:
        problem = " ".join(str(outcome.exception_info).split())[:500]
        raise ValueError(
            f"the rule {rule.name!r} could not be evaluated on the table {rule.table!r}: {problem}"
        )
    rows = np.unique(np.asarray(outcome.result.get("unexpected_index_list") or [], dtype=np.int64))
    return Found(rule, bool(outcome.success), rows, True, outcome)


@dataclass(frozen=True)
class Words:
    """Tells what is wrong with a row. `elsewhere`: the images of other sets that `like_test_of_other_set` counts."""

    frames: Frames
    elsewhere: Sequence[str] = ()

    def source(self, rule: Rule, row: int) -> str:
        """What the row is called."""
        return str(self.frames[rule.table]["source"].iat[row])

    def other(self, rule: Rule, row: int) -> int | None:
        """The row of the other image of this set that the rule names, if it names one."""
        if not rule.told.startswith(("same_", "like_")) or rule.told == "like_test_of_other_set":
            return None
        value: Any = self.frames[rule.table][rule.told].iat[row]
        return None if pd.isna(value) else int(value)

    def detail(self, rule: Rule, row: int) -> str:
        """The value that shows what is wrong with the row, or what the other image is called; "" for neither."""
        other = self.other(rule, row)
        if other is not None:
            return self.source(rule, other)
        value: Any = self.frames[rule.table][rule.told].iat[row] if rule.told else None
        if pd.isna(value):
            return ""
        if rule.told == "like_test_of_other_set":
            return self.elsewhere[int(value)]
        if isinstance(value, (float, np.floating)):
            return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
        return str(value)

    def reason(self, rule: Rule, row: int) -> str:
        """What is wrong with the row, with its detail; what could not be decoded speaks for itself."""
        detail = self.detail(rule, row)
        if rule.told == "error" and detail:
            return detail
        if rule.told.startswith(("same_", "like_")) and detail:
            return f"{rule.reason}: {detail}"
        return f"{rule.reason} ({detail})" if detail else rule.reason

    def summary(self, one: Found, most: int) -> str:
        """What a rule found, in a line: the reason, the first rows with their details, how many more there are."""
        details = [(self.source(one.rule, row), self.detail(one.rule, row)) for row in one.rows[:most]]
        few = ", ".join(f"{source} ({detail})" if detail else source for source, detail in details)
        more = f" and {len(one.rows) - most:,} more" if len(one.rows) > most else ""
        return f"{one.rule.reason}: {few}{more}" if few else one.rule.reason

    def examples(self, one: Found, most: int) -> list[tuple[str, str]]:
        """(what it is called, what is wrong with it) of the first rows that break a rule."""
        return [(self.source(one.rule, row), self.reason(one.rule, row)) for row in one.rows[:most]]
