"""300-W: 68 landmarks in a `.pts` file next to each image of AFW, HELEN, LFPW and iBUG.

Training: AFW and the training parts of HELEN and LFPW (3,148). Test: their test parts (common, 554) and iBUG
(challenging, 135; group `challenging`). Mirrored copies (`…_mirror.pts`), which some downloads contain, are left out.
Points are published counted from 1. Each image is cropped to the face around its landmarks with a margin of a quarter
of its side (this project's choice).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import IMAGE_SUFFIXES, open_text, parse_number, require
from fra.data.datasets.boxes import crop_around
from fra.data.datasets.records import DatasetConfig, Record, split_off

logger = logging.getLogger(__name__)

POINTS = 68
MARGIN = 0.25
MIRRORED = "_mirror"
"""End of the name of a mirrored copy: not an image of the published protocol, and no new test image."""
PARTS = (
    ("afw", "train", 0),
    ("helen/trainset", "train", 0),
    ("lfpw/trainset", "train", 0),
    ("helen/testset", "test", 0),
    ("lfpw/testset", "test", 0),
    ("ibug", "test", 1),
)
"""Folder, split, and whether it belongs to the challenging subset."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    mirrored = 0
    for part, split, challenging in PARTS:
        found = sorted(require(root / part, "a part of 300-W").glob("*.pts"))
        annotations = [path for path in found if not path.stem.endswith(MIRRORED)]
        if not annotations:
            raise FileNotFoundError(f"{root / part}: no .pts file in it; 300-W has one next to each image")
        mirrored += len(found) - len(annotations)
        for path in annotations:
            box, landmarks = crop_around(read_points(path), MARGIN)
            source = image_of(path).relative_to(root).as_posix()
            groups = {"challenging": challenging} if split == "test" else {}
            yield Record(
                source, split_off(split, source, config), landmarks=landmarks, box=box, groups=groups
            )
    if mirrored:
        logger.warning("%s: %d mirrored copies (*%s.pts) left out", root, mirrored, MIRRORED)


def image_of(path: Path) -> Path:
    """The image of a `.pts` file: the same name with the suffix of an image.

    Raises:
        FileNotFoundError: There is none.
    """
    found = [path.with_suffix(suffix) for suffix in sorted(IMAGE_SUFFIXES)]
    for image in (*found, *(image.with_suffix(image.suffix.upper()) for image in found)):
        if image.is_file():
            return image
    raise FileNotFoundError(f"{path.with_suffix('.jpg')}: no image (.jpg or .png) next to {path.name}")


def read_points(path: Path) -> tuple[float, ...]:
    """The points x0, y0, x1 … of a `.pts` file, counted from 0; comments (`#` or `//`) are skipped.

    Raises:
        ValueError: The file is not as published.
    """
    with open_text(path) as stream:
        text = re.sub(r"(#|//).*", "", stream.read())
    head, _, body = text.partition("{")
    try:
        values = tuple(parse_number(word) - 1 for word in body.partition("}")[0].split())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    count = re.search(r"n_points\s*:\s*(\d+)", head)
    if count is None or int(count[1][:9]) != POINTS or len(values) != 2 * POINTS:
        raise ValueError(
            f"{path}: expected n_points: {POINTS} and as many lines `x y`, found {len(values) // 2}"
        )
    return values
