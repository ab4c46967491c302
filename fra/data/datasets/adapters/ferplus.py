"""FER+: the votes of ten people on each image of FER2013: `fer2013new.csv` in the same folder, in the same row order.

Label `expression`: 0 neutral, 1 happiness, 2 surprise, 3 sadness, 4 anger, 5 disgust, 6 fear, 7 contempt: the class
with most votes. Images without a single winner, or won by "unknown" or "NF" (no face), are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from fra.data.datasets.adapters.fer2013 import name_of, rows
from fra.data.datasets.annotation_files import malformed, open_text, require
from fra.data.datasets.records import DatasetConfig, Record

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
CHOICES = (*EMOTIONS, "unknown", "NF")


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    listed = require(root / "fer2013new.csv", "FER+'s votes; FER2013's own table must be in the same folder")
    with open_text(listed) as stream:
        table = csv.reader(stream)
        header = [name.strip() for name in next(table, [])]
        for number, (line, row) in enumerate(zip_longest(table, rows(root)), start=2):
            if line is None or row is None:
                raise malformed(listed, number, "as many rows as FER2013's table has", line or "the end")
            values = dict(zip(header, line, strict=False))
            try:
                votes = [int(values[choice]) for choice in CHOICES]
            except (KeyError, ValueError):
                raise malformed(listed, number, f"votes for {', '.join(CHOICES)}", ",".join(line)) from None
            winner = votes.index(max(votes))
            if winner < len(EMOTIONS) and votes.count(max(votes)) == 1:
                yield Record(name_of(row), row.split, labels={"expression": winner}, content=row.content)
