"""A validation rule, and the functions that build its expectation."""

from __future__ import annotations

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when great_expectations is imported

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

from fra.validation.config import Severity

Table = Literal["columns", "images", "labels", "files", "drift", "batches"]
ACTIONS: dict[Severity, str] = {"error": "stop the run", "quarantine": "quarantine the rows", "warn": "warn"}
"""What happens where a rule fails, by its severity; the most severe first."""
TABLES: dict[Table, str] = {
    "columns": "Columns of the manifest",
    "images": "Images",
    "labels": "Labels",
    "files": "Shards and betons",
    "drift": "Drift from the reference",
    "batches": "First training batch",
}


@dataclass(frozen=True)
class Rule:
    """An expectation that each row of a table must meet.

    Attributes:
        name: Identifies the rule, e.g. in `validate.severities`.
        severity: What happens where it fails (see `ACTIONS`).
        reason: Completes the sentence "fails where …".
        expectation: The expectation, an object of Great Expectations.
        table: The table that it is evaluated on.
        report_column: The column whose value is reported with the reason (of columns that begin with "same_" or
            "like_", the name of the other image). None stands for the expectation's own column, "" for no value.
        alternative: A less strict severity, suggested where the rule stops the run and published data may break it.
    """

    name: str
    severity: Severity
    reason: str
    expectation: Expectation
    table: Table = "images"
    report_column: str | None = None
    alternative: Severity | None = None

    @property
    def reported_column(self) -> str:
        """The column whose value is reported; "" for none."""
        if self.report_column is not None:
            return self.report_column
        return str(getattr(self.expectation, "column", ""))


def between(column: str, low: float | None = None, high: float | None = None) -> Expectation:
    """Expects values from `low` to `high`, both included. Nulls are ignored, here and in the functions below."""
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def one_of(column: str, values: list[str] | list[int]) -> Expectation:
    """Expects values that are in the list."""
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values)


def is_true(column: str) -> Expectation:
    """Expects flags that are 1, not 0."""
    return one_of(column, [1])


def not_null(column: str) -> Expectation:
    """Expects a value in each row."""
    return gxe.ExpectColumnValuesToNotBeNull(column=column)


def is_null(column: str) -> Expectation:
    """Expects no value in any row: the column holds problems, or the positions of conflicting images."""
    return gxe.ExpectColumnValuesToBeNull(column=column)


def unique(column: str) -> Expectation:
    """Expects each value only once."""
    return gxe.ExpectColumnValuesToBeUnique(column=column)


def not_matching(column: str, pattern: str) -> Expectation:
    """Expects that the regular expression is found in no value."""
    return gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=pattern)


def equal(first: str, second: str) -> Expectation:
    """Expects equal values in two columns, where both have one."""
    return gxe.ExpectColumnPairValuesToBeEqual(
        column_A=first, column_B=second, ignore_row_if="either_value_is_missing"
    )


def at_least(rows: int) -> Expectation:
    """Expects at least `rows` rows."""
    return gxe.ExpectTableRowCountToBeBetween(min_value=rows)


def own(path: Path) -> list[Rule]:
    """Reads the list `RULES` from a user's Python file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It cannot be loaded, or holds something else than rules.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; see validate.expectations")
    spec = importlib.util.spec_from_file_location("own_expectations", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: not a Python file (.py); see validate.expectations")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        rules = list(module.RULES)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"{path}: cannot be loaded ({type(error).__name__}: {error}); see validate.expectations"
        ) from error
    for rule in rules:
        if not isinstance(rule, Rule) or rule.severity not in ACTIONS or rule.table not in TABLES:
            raise ValueError(f"{path}: {rule!r} is not a Rule with a known severity and table")
    return rules
