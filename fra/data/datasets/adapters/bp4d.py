"""BP4D: `AUCoding/AU_OCC/F001_T1.csv`, one table per person and task: a row per frame, a column per action unit.

The first column (named 0) is the frame, the others are named by their unit: 1 active, 0 not, anything else (9) not
coded. Images `img/F001/T1/2440.jpg` (or `2D+3D/F001/T1/2440.jpg`, as published); numbers may be padded with zeros.
Labels `AU1`, `AU2` …; the literature evaluates AU 1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23 and 24 in three folds
of the 41 people. Here the shares `dataset.val` and `dataset.test` of them are held out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, open_text, require
from fra.data.datasets.records import DatasetConfig, Record, split_of

LABELS = "AUCoding/AU_OCC"
IMAGES = ("img", "2D+3D")


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    tables = sorted(require(root / LABELS, "BP4D's tables of action units").glob("*_*.csv"))
    if not tables:
        raise FileNotFoundError(f"{root / LABELS / 'F001_T1.csv'}: no such file; check dataset.root")
    images = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    if images is None:
        raise FileNotFoundError(f"{root / IMAGES[0]}: no such folder (nor {IMAGES[1]}); check dataset.root")
    for path in tables:
        person, _, task = path.stem.partition("_")
        files = {
            int(file.stem): file for file in (images / person / task).glob("*.jpg") if file.stem.isdecimal()
        }
        for frame, labels in rows(path):
            file = files.get(frame, images / person / task / f"{frame}.jpg")
            yield Record(file.relative_to(root).as_posix(), split_of(person, config), person, labels)


def rows(path: Path) -> Iterator[tuple[int, dict[str, int]]]:
    """Each coded frame with its known action units."""
    with open_text(path) as stream:
        table = csv.reader(stream)
        units = [name.strip() for name in next(table, [])][1:]
        for number, line in enumerate(table, start=2):
            try:
                frame, values = int(line[0]), [int(value) for value in line[1:]]
            except (IndexError, ValueError):
                raise malformed(path, number, "a frame and a number for each unit", ",".join(line)) from None
            if len(values) != len(units):
                raise malformed(path, number, f"{len(units)} units", f"{len(values)} units")
            yield (
                frame,
                {f"AU{unit}": value for unit, value in zip(units, values, strict=True) if value in (0, 1)},
            )
