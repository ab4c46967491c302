"""What data must be: the rules of the gate, as a table that reads like a specification.

A rule is a Great Expectations expectation on the measured manifest (`fra.quality.measure`), how much it matters, and
what it means in words. Severities: `error` stops the run; `quarantine` sets the rows aside; `warn` is reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from fra.data.records import SPLITS

Severity = Literal["error", "warn", "quarantine"]


@dataclass(frozen=True)
class ValidateConfig:
    """Limits of the gate. Fractions are of all rows; sides in pixels, brightness and contrast in 0…255."""

    max_quarantined: float = 0.02
    min_side: int = 32
    max_side: int = 8192
    max_aspect: float = 3.0
    min_contrast: float = 4.0
    min_images: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.max_quarantined <= 1:
            raise ValueError(f"validate.max_quarantined is {self.max_quarantined}: a fraction, 0 to 1")
        if not 1 <= self.min_side <= self.max_side:
            raise ValueError(f"validate.min_side {self.min_side} and max_side {self.max_side} leave no image")


@dataclass(frozen=True)
class Rule:
    """One line of the specification: `name` identifies it, `reason` is what a person reads when it fails."""

    name: str
    severity: Severity
    reason: str
    expectation: Expectation


def rules(config: ValidateConfig, table: pd.DataFrame) -> list[Rule]:
    """The suite for a measured manifest; label and landmark rules are there if the columns are."""
    low, high = config.min_side, config.max_side
    suite = [
        Rule(
            "rows",
            "error",
            f"fewer than {config.min_images} images",
            gxe.ExpectTableRowCountToBeBetween(min_value=config.min_images),
        ),
        Rule(
            "key is unique", "error", "two rows share a key", gxe.ExpectColumnValuesToBeUnique(column="key")
        ),
        Rule(
            "split is known",
            "error",
            f"split is none of {', '.join(SPLITS)}",
            gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
        ),
        Rule(
            "people in one split",
            "error",
            "a person is in two splits",
            gxe.ExpectColumnValuesToBeInSet(column="splits_of_person", value_set=[1]),
        ),
        Rule("decodable", "quarantine", "cannot be decoded", gxe.ExpectColumnValuesToBeNull(column="error")),
        Rule(
            "bytes as listed",
            "error",
            "the shard's bytes are not those of the manifest",
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="sha256", column_B="found_sha256", ignore_row_if="either_value_is_missing"
            ),
        ),
        Rule(
            "in its shard",
            "error",
            "listed in a shard that does not hold it",
            gxe.ExpectColumnValuesToBeInSet(column="lost", value_set=[False]),
        ),
        Rule(
            "shortest side",
            "quarantine",
            f"shorter than {low} pixels",
            gxe.ExpectColumnValuesToBeBetween(column="shortest_side", min_value=low),
        ),
        Rule(
            "longest side",
            "quarantine",
            f"longer than {high} pixels",
            gxe.ExpectColumnValuesToBeBetween(column="longest_side", max_value=high),
        ),
        Rule(
            "aspect",
            "quarantine",
            f"longer than {config.max_aspect} times its width or height",
            gxe.ExpectColumnValuesToBeBetween(column="aspect", max_value=config.max_aspect),
        ),
        Rule(
            "contrast",
            "quarantine",
            f"blank: pixels deviate by less than {config.min_contrast} of 255",
            gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=config.min_contrast),
        ),
        Rule(
            "no duplicate across splits",
            "error",
            "the same bytes are in two splits",
            gxe.ExpectColumnValuesToBeInSet(column="splits_of_bytes", value_set=[1]),
        ),
        Rule(
            "no duplicate", "warn", "the same bytes twice", gxe.ExpectColumnValuesToBeUnique(column="sha256")
        ),
    ]
    for label in [column for column in table.columns if column.startswith("label.")]:
        suite.append(
            Rule(
                f"{label} is known",
                "error",
                "not a class number (0 and up)",
                gxe.ExpectColumnValuesToBeBetween(column=label, min_value=0),
            )
        )
    if table["landmarks"].notna().any():
        suite.append(
            Rule(
                "landmarks are finite",
                "error",
                "a landmark is not a number, or their count differs",
                gxe.ExpectColumnValuesToBeInSet(column="landmarks_fit", value_set=[True]),
            )
        )
    return suite


def derive(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns that rules look at; null where a rule does not apply to a row."""
    sharded = table["shard"].notna()
    known = table["person"].notna()
    sides = table[["width", "height"]].where(sharded)
    longest, shortest = sides.max(axis=1), sides.min(axis=1)
    counts = table["landmarks"].map(lambda points: None if points is None else len(points))
    usual = counts.mode().iloc[0] if counts.notna().any() else 0
    return table.assign(
        splits_of_person=table.groupby("person")["split"].transform("nunique").where(known),
        splits_of_bytes=table.groupby("sha256")["split"].transform("nunique").where(sharded),
        lost=(sharded & table["found_sha256"].isna()),
        shortest_side=shortest,
        longest_side=longest,
        aspect=longest / shortest,
        landmarks_fit=[
            None if points is None else len(points) == usual and bool(pd.notna(list(points)).all())
            for points in table["landmarks"]
        ],
    )


def slug(name: str) -> str:
    """A rule's name as a file or anchor name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
