"""A set of one's own: `labels.csv` in the root, one line per image, and the images in any folders.

Columns: `image` (path below the root) and, as far as known, `split` (train, val or test), `person`, and landmarks `x0`,
`y0`, `x1` … (pixels of the file, counted from the centre of its top left pixel). Every other column is a number or
missing: columns of whole numbers from 0 up (`1` or `1.0`) are labels (classes), others measures (angles). Columns named
`group.<name>` only tell subsets apart, which are evaluated separately (`transfer.groups`) but not learnt. Missing
values are empty, or written as `nan`, `None`, `NA`, `N/A` or `null`. Without `split`, the shares `dataset.val` and
`dataset.test` of the people (of the images, where no person is named) are held out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fra.data.datasets.annotation_files import is_missing, malformed, open_text, parse_number, require
from fra.data.datasets.records import SPLITS, DatasetConfig, Record, split_of, split_off

GROUP = "group."
"""Prefix of the columns of groups."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    listed = require(root / "labels.csv", "the list of images, with a column `image`")
    with open_text(listed) as stream:
        rows = csv.DictReader(stream)
        columns = [name.strip() for name in rows.fieldnames or []]
        rows.fieldnames = columns
        if "image" not in columns:
            raise malformed(listed, 1, "a column `image`", ",".join(columns))
        points = sorted((name for name in columns if re.fullmatch(r"[xy]\d+", name)), key=landmark_order)
        names = [name for name in columns if name not in ("image", "split", "person", *points)]
        lines = list(enumerate(rows, start=2))
    whole = {name: all(is_class(row[name]) for _, row in lines) for name in names}
    if any((row.get("split") or "").strip() == "val" for _, row in lines):
        config = replace(config, val=0.0)  # it has a validation split of its own
    for line, row in lines:
        try:
            found = record(row, points, whole, config)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise malformed(listed, line, f"{', '.join(columns)} ({error})", list(row.values())) from None
        yield found


def record(
    row: Mapping[str, str], points: list[str], whole: Mapping[str, bool], config: DatasetConfig
) -> Record:
    """The record of one line.

    Args:
        row: The line's values by column.
        points: Columns of landmarks, in order.
        whole: For each other column, whether all its values are whole numbers or missing.
        config: The data set.

    Raises:
        ValueError: A value is not a number, or the split does not exist.
    """
    source, split = row["image"].strip(), row.get("split")
    person = None if is_missing(row.get("person")) else row["person"].strip()
    if split is None:
        split = split_of(person or source, config)
    elif split.strip() not in SPLITS:
        raise ValueError(f"split is one of {', '.join(SPLITS)}")
    known = {name: parse_number(row[name]) for name in whole if not is_missing(row[name])}
    groups = {name: value for name, value in known.items() if name.startswith(GROUP)}
    if wrong := [name for name in groups if not whole[name]]:
        raise ValueError(f"{wrong[0]} is a whole number from 0 up")
    labels = {name: int(value) for name, value in known.items() if whole[name] and name not in groups}
    measures = {name: value for name, value in known.items() if not whole[name]}
    missing_points = [name for name in points if is_missing(row[name])]
    if missing_points and len(missing_points) < len(points):
        raise ValueError(f"the landmark {missing_points[0]} is missing")
    landmarks = None if missing_points or not points else tuple(parse_number(row[name]) for name in points)
    split = split_off(split.strip(), person or source, config)
    return Record(
        source,
        split,
        person,
        labels,
        landmarks,
        measures=measures,
        groups={name.removeprefix(GROUP): int(value) for name, value in groups.items()},
    )


def is_class(word: str | None) -> bool:
    """Whether a field is missing or a whole number from 0 up, which may be written as `1.0`."""
    if word is None or is_missing(word):
        return True
    try:
        value = parse_number(word)
    except ValueError:
        return False
    return value >= 0 and value.is_integer()


def landmark_order(name: str) -> tuple[int, str]:
    """The sort key of a landmark column: x0, y0, x1 and so on."""
    return int(name[1:]), name[0]
