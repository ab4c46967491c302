"""FER2013: 48×48 grey pixels in `fer2013.csv` (or `icml_face_data.csv`, whose header has leading spaces).

Label `expression`: 0 Angry, 1 Disgust, 2 Fear, 3 Happy, 4 Sad, 5 Surprise, 6 Neutral. 28,709 training, 3,589
validation (PublicTest) and 3,589 test (PrivateTest) images, which are stored as PGM files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fra.data.datasets.annotation_files import malformed, open_text
from fra.data.datasets.records import DatasetConfig, Record

SIDE = 48
EMOTIONS = 7
SPLIT = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


class Row(NamedTuple):
    """One line of the table: the number of the image (from 0), split, label (0 to 6), image file (PGM)."""

    number: int
    split: str
    label: int
    content: bytes


def rows(root: Path) -> Iterator[Row]:
    """The images in the order of the table."""
    names = ("fer2013.csv", "icml_face_data.csv")
    found = [root / name for name in names if (root / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{root}: {' or '.join(names)} expected in it; check dataset.root")
    with open_text(found[0]) as stream:
        table = csv.reader(stream)
        header = [name.strip() for name in next(table, [])]
        for number, line in enumerate(table):
            row = {name: value.strip() for name, value in zip(header, line, strict=False)}
            try:
                pixels = np.array(row["pixels"].split(), dtype=np.uint8)
                split, label = SPLIT[row["Usage"]], int(row["emotion"])
            except (KeyError, ValueError, OverflowError):
                raise malformed(found[0], number + 2, "emotion, pixels (0 to 255) and Usage", line) from None
            if not 0 <= label < EMOTIONS:
                raise malformed(found[0], number + 2, f"an emotion of 0 to {EMOTIONS - 1}", label)
            if len(pixels) != SIDE * SIDE:
                raise malformed(found[0], number + 2, f"{SIDE * SIDE} pixels", f"{len(pixels)} pixels")
            yield Row(number, split, label, b"P5\n%d %d\n255\n" % (SIDE, SIDE) + pixels.tobytes())


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    for row in rows(root):
        yield Record(name_of(row), row.split, labels={"expression": row.label}, content=row.content)


def name_of(row: Row) -> str:
    """The name of an image: `<split>/fer0000000.pgm`, with its number in the table as in FER+."""
    return f"{row.split}/fer{row.number:07d}.pgm"
