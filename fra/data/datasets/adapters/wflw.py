"""WFLW: 98 landmarks, a face box and six flags per line; images in `WFLW_images/`, often with several faces.

Groups: `pose`, `expression`, `illumination`, `make_up`, `occlusion`, `blur` (0 or 1): the subsets of the protocol.
7,500 training and 2,500 test faces. Points are published counted from 0. Each image is cropped to one face
around its landmarks with a margin of a quarter of its side (this project's choice).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, parse_number, require, words_by_line
from fra.data.datasets.boxes import crop_around
from fra.data.datasets.records import DatasetConfig, Record, split_off

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"
FLAGS = ("pose", "expression", "illumination", "make_up", "occlusion", "blur")
FLAG = ("0", "1")
COORDINATES, BOX = 196, 4
MARGIN = 0.25


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    require(root / "WFLW_images", "WFLW's images")
    for split in ("train", "test"):
        listed = require(root / LISTS / f"list_98pt_rect_attr_{split}.txt", "WFLW's list of faces")
        for line, words in words_by_line(listed):
            if len(words) != COORDINATES + BOX + len(FLAGS) + 1:
                raise malformed(listed, line, "207 fields", f"{len(words)} fields")
            try:
                points = tuple(parse_number(word) for word in words[:COORDINATES])
                flags = [FLAG.index(word) for word in words[COORDINATES + BOX : -1]]
            except ValueError:
                raise malformed(listed, line, "206 numbers and an image name", " ".join(words)) from None
            box, landmarks = crop_around(points, MARGIN)
            source = f"WFLW_images/{words[-1]}"
            groups = dict(zip(FLAGS, flags, strict=True))
            yield Record(
                source, split_off(split, source, config), landmarks=landmarks, box=box, groups=groups
            )
