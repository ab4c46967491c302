"""A set of one's own: `labels.csv` in the root, one line per image, and the images in any folders.

Columns: `image` (path below the root) and, as far as known, `split` (train, val or test), `person`, and landmarks `x0`,
`y0`, `x1` … (pixels of the file, counted from the centre of its top left pixel). Every other column is a number or
empty: columns of whole numbers from 0 up are labels (classes), others measures (angles). Without `split`, the shares
`dataset.val` and `dataset.test` of the people (of the images, where no person is named) are held out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, open_text, parse_number, require
from fra.data.datasets.records import SPLITS, DatasetConfig, Record, split_of, split_off


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
    whole = {name: all(re.fullmatch(r"\s*\d*\s*", row[name] or "") for _, row in lines) for name in names}
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
        whole: For each other column, whether all its values are whole numbers.
        config: The data set.

    Raises:
        ValueError: A value is not a number, or the split does not exist.
    """
    source, person, split = row["image"].strip(), (row.get("person") or "").strip() or None, row.get("split")
    if split is None:
        split = split_of(person or source, config)
    elif split.strip() not in SPLITS:
        raise ValueError(f"split is one of {', '.join(SPLITS)}")
    known = {name: parse_number(row[name]) for name in whole if (row[name] or "").strip()}
    labels = {name: int(value) for name, value in known.items() if whole[name]}
    measures = {name: value for name, value in known.items() if not whole[name]}
    all_points = bool(points) and all((row[name] or "").strip() for name in points)
    landmarks = tuple(parse_number(row[name]) for name in points) if all_points else None
    split = split_off(split.strip(), person or source, config)
    return Record(source, split, person, labels, landmarks, measures=measures)


def landmark_order(name: str) -> tuple[int, str]:
    """The sort key of a landmark column: x0, y0, x1 and so on."""
    return int(name[1:]), name[0]
