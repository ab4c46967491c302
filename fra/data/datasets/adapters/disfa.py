"""DISFA: `ActionUnit_Labels/SN001/SN001_au1.txt`, one file per person and action unit.

Each line is `frame,intensity` with intensities from 0 to 5.

The set is published as videos; their frames are expected as `img/SN001/0.png`, numbered from 0 in the order of the
label files' lines, as the tools of CVI-SZU/ME-GraphAU write them. Labels `AU1`, `AU2` …: 1 where the intensity is 2
or more, as in the literature, which evaluates AU 1, 2, 4, 6, 9, 12, 25 and 26 in three folds of people. Here
the shares `dataset.val` and `dataset.test` of the 27 people are held out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, open_text, require
from fra.data.datasets.records import DatasetConfig, Record, split_of

LABELS, IMAGES = "ActionUnit_Labels", "img"
INTENSITIES = tuple("012345")
ACTIVE = 2
"""The lowest intensity that counts as an active unit."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    require(root / IMAGES, "DISFA's frames, one folder per person")
    for folder in sorted(
        path for path in require(root / LABELS, "DISFA's labels").iterdir() if path.is_dir()
    ):
        person = folder.name
        units = {
            f"AU{found[1]}": intensities(path)
            for path in sorted(folder.glob("*.txt"))
            if (found := re.fullmatch(rf"{re.escape(person)}_au(\d+)", path.stem, re.IGNORECASE))
        }
        if not units:
            raise FileNotFoundError(f"{folder / f'{person}_au1.txt'}: no such file; check dataset.root")
        lengths = {name: len(values) for name, values in units.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{folder}: its action units differ in their number of frames: {lengths}")
        for frame in range(next(iter(lengths.values()))):
            labels = {name: int(values[frame] >= ACTIVE) for name, values in units.items()}
            yield Record(f"{IMAGES}/{person}/{frame}.png", split_of(person, config), person, labels)


def intensities(path: Path) -> list[int]:
    """The intensity of one action unit in each frame."""
    found = []
    with open_text(path) as stream:
        for number, line in enumerate(csv.reader(stream), start=1):
            words = [word.strip() for word in line]
            if len(words) != 2 or not words[0].isdigit() or words[1] not in INTENSITIES:
                raise malformed(path, number, "`frame,intensity`", ",".join(line))
            found.append(int(words[1]))
    return found
