"""One line of the gate's specification, and the words to write it in."""

from __future__ import annotations

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when great_expectations is imported

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

Severity = Literal["error", "warn", "quarantine"]
Table = Literal["columns", "images", "labels", "files", "drift", "batches"]
THEN: dict[Severity, str] = {"error": "stops", "quarantine": "sets aside", "warn": "warns"}
"""What a rule does where it does not hold, in a word; the gravest first."""
TABLES: dict[Table, str] = {
    "columns": "Columns of the manifest",
    "images": "Images",
    "labels": "Labels",
    "files": "Shards and betons",
    "drift": "Drift against the reference",
    "batches": "Batches that the network will see",
}


@dataclass(frozen=True)
class Rule:
    """What must hold for every row of a table.

    `name` identifies it; `reason` completes "fails where …"; `table` is what it looks at; `tell` names the column whose
    value is told with the reason (another image where the column begins with "same_" or "like_"): where it is not
    given, the column that the expectation is on; "" for none.
    """

    name: str
    severity: Severity
    reason: str
    expectation: Expectation
    table: Table = "images"
    tell: str | None = None

    @property
    def told(self) -> str:
        """The column whose value is told, "" for none."""
        return str(getattr(self.expectation, "column", "")) if self.tell is None else self.tell


def between(column: str, low: float | None = None, high: float | None = None) -> Expectation:
    """Values are neither below `low` nor above `high`; null values do not count, here and below."""
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def one_of(column: str, values: list[str] | list[int]) -> Expectation:
    """Values are among these."""
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values)


def true(column: str) -> Expectation:
    """Values are 1, not 0."""
    return one_of(column, [1])


def there(column: str) -> Expectation:
    """Each row has a value."""
    return gxe.ExpectColumnValuesToNotBeNull(column=column)


def absent(column: str) -> Expectation:
    """No row has a value: the column says what is wrong, or with which other image."""
    return gxe.ExpectColumnValuesToBeNull(column=column)


def unique(column: str) -> Expectation:
    """No two rows have the same value."""
    return gxe.ExpectColumnValuesToBeUnique(column=column)


def without(column: str, pattern: str) -> Expectation:
    """No value has the pattern (a regular expression) in it."""
    return gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=pattern)


def equal(first: str, second: str) -> Expectation:
    """Two columns agree, where both have a value."""
    return gxe.ExpectColumnPairValuesToBeEqual(
        column_A=first, column_B=second, ignore_row_if="either_value_is_missing"
    )


def at_least(rows: int) -> Expectation:
    """The table has so many rows."""
    return gxe.ExpectTableRowCountToBeBetween(min_value=rows)


def own(path: Path) -> list[Rule]:
    """The list `RULES` of a user's file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be loaded, or holds something else than rules.
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
    except Exception as error:  # the user's own code
        raise ValueError(
            f"{path}: cannot be loaded ({type(error).__name__}: {error}); see validate.expectations"
        ) from error
    for rule in rules:
        if not isinstance(rule, Rule) or rule.severity not in THEN or rule.table not in TABLES:
            raise ValueError(f"{path}: {rule!r} is not a Rule with a severity and a table that exist")
    return rules
