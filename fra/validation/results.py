"""Evaluates rules on tables with Great Expectations, and explains the rows that break them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import great_expectations as gx
import numpy as np
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from numpy.typing import NDArray

from fra.validation.rules.rule import Rule, Table

Frames = Mapping[Table, pd.DataFrame]
"""The tables of `fra.validation.tables`, by name; the column `source` of each names its rows."""


@dataclass(frozen=True)
class RuleResult:
    """The outcome of one rule.

    Attributes:
        rule: The rule.
        success: Whether it holds.
        rows: Positions of the rows that break it, ascending; empty for rules on a table as a whole.
        evaluated: False where its table is missing: no reference profile, or no training on the set.
        outcome: The result object of Great Expectations, for its own pages.
    """

    rule: Rule
    success: bool = True
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    evaluated: bool = False
    outcome: Any = None


def evaluate_rules(frames: Frames, rules: Sequence[Rule]) -> list[RuleResult]:
    """Evaluates each rule on its table; returns one result per rule, in the order of `rules`.

    A rule whose table is missing or empty is not evaluated: its result has `evaluated` False, and `success` True.

    Raises:
        ValueError: A rule names a column that its table does not have, or cannot be evaluated.
    """
    results: dict[str, RuleResult] = {}
    for table in dict.fromkeys(rule.table for rule in rules):
        selected = [rule for rule in rules if rule.table == table]
        frame = frames.get(table, pd.DataFrame())
        of_table = (
            [RuleResult(rule) for rule in selected] if frame.empty else evaluate_table(table, frame, selected)
        )
        results |= {result.rule.name: result for result in of_table}
    return [results[rule.name] for rule in rules]


def evaluate_table(table: str, frame: pd.DataFrame, rules: Sequence[Rule]) -> list[RuleResult]:
    """Evaluates the rules of one table.

    Raises:
        ValueError: A rule cannot be evaluated.
    """
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it logs its temporary folders
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for rule in rules:
        rule.expectation.meta = {"rule": rule.name, "severity": rule.severity}
        rule.expectation.notes = f"**{rule.name}** ({rule.severity}): fails where {rule.reason}."
    asset = context.data_sources.add_pandas("validation").add_dataframe_asset(table)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(name=table, expectations=[rule.expectation for rule in rules])
    with configured_once():
        validation = batch.validate(
            suite,
            result_format={
                "result_format": "COMPLETE",
                "partial_unexpected_count": 5,
                "exclude_unexpected_values": True,
                "return_unexpected_index_query": False,
            },
        )
    outcomes: dict[str, Any] = {
        outcome.expectation_config.meta["rule"]: outcome
        for outcome in validation.results
        if outcome.expectation_config is not None and outcome.expectation_config.meta is not None
    }
    return [rule_result(rule, outcomes[rule.name]) for rule in rules]


@contextmanager
def configured_once() -> Iterator[None]:
    """Derives the configuration of each expectation once, which takes Great Expectations a third of its time otherwise.

    It derives it from the fields wherever it reads one, some seventy times per rule; nothing changes them here.
    """
    derived: Any = Expectation.configuration
    known: dict[int, tuple[Expectation, Any]] = {}

    def configuration(expectation: Expectation) -> Any:
        if id(expectation) not in known:
            known[id(expectation)] = expectation, derived.fget(expectation)
        return known[id(expectation)][1]

    with patch.object(Expectation, "configuration", property(configuration)):
        yield


def rule_result(rule: Rule, outcome: Any) -> RuleResult:
    """Converts Great Expectations' result of one rule.

    Raises:
        ValueError: Great Expectations could not evaluate the rule.
    """
    if not outcome.success and not outcome.result:
        problem = " ".join(str(outcome.exception_info).split())[:500]
        raise ValueError(
            f"the rule {rule.name!r} could not be evaluated on the table {rule.table!r}: {problem}"
        )
    rows = np.unique(np.asarray(outcome.result.get("unexpected_index_list") or [], dtype=np.int64))
    return RuleResult(rule, bool(outcome.success), rows, True, outcome)


@dataclass(frozen=True)
class Explainer:
    """Explains which rows break a rule and why.

    Attributes:
        frames: The tables that were evaluated.
        held_out: Names of the images of other sets, whose positions the column `near_test_of_other_set` holds.
    """

    frames: Frames
    held_out: Sequence[str] = ()

    def source(self, rule: Rule, row: int) -> str:
        """Returns the name of a row of the rule's table."""
        return str(self.frames[rule.table]["source"].iat[row])

    def other(self, rule: Rule, row: int) -> int | None:
        """Returns the row of the other image of this set that the rule compares with, if there is one."""
        column = rule.reported_column
        if not column.startswith(("same_", "near_")) or column == "near_test_of_other_set":
            return None
        value: Any = self.frames[rule.table][column].iat[row]
        return None if pd.isna(value) else int(value)

    def detail(self, rule: Rule, row: int) -> str:
        """Returns the reported value of a row, or the name of the other image; an empty string for neither."""
        other = self.other(rule, row)
        if other is not None:
            return self.source(rule, other)
        column = rule.reported_column
        value: Any = self.frames[rule.table][column].iat[row] if column else None
        if pd.isna(value):
            return ""
        if column == "near_test_of_other_set":
            return self.held_out[int(value)]
        if isinstance(value, (float, np.floating)):
            return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
        return str(value)

    def reason(self, rule: Rule, row: int) -> str:
        """Returns what is wrong with a row, with its detail; of an image in no shard, the error alone."""
        detail = self.detail(rule, row)
        if rule.reported_column in ("error", "no_face") and detail:
            return detail
        if rule.reported_column.startswith(("same_", "near_")) and detail:
            return f"{rule.reason}: {detail}"
        return f"{rule.reason} ({detail})" if detail else rule.reason

    def summary(self, result: RuleResult, most: int) -> str:
        """Returns a rule's outcome in one line: the reason, at most `most` rows, and how many more there are."""
        details = [
            (self.source(result.rule, row), self.detail(result.rule, row)) for row in result.rows[:most]
        ]
        few = ", ".join(f"{source} ({detail})" if detail else source for source, detail in details)
        more = f" and {len(result.rows) - most:,} more" if len(result.rows) > most else ""
        return f"{result.rule.reason}: {few}{more}" if few else result.rule.reason

    def examples(self, result: RuleResult, most: int) -> list[tuple[str, str]]:
        """Returns (name, reason) of the first `most` rows that break a rule."""
        return [(self.source(result.rule, row), self.reason(result.rule, row)) for row in result.rows[:most]]
