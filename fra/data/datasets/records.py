"""What an adapter makes of a folder: records, one an image; and the settings that choose the folder.

An adapter is a module of `fra.data.datasets.adapters` with a function `records(root, config)`. It reads file names and
annotation files, never pixels: that is `fra.data.shards.write`' work.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import splitext
from typing import TextIO

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff"})
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetConfig:
    """One data set. `name` labels what is made from it; `adapter` says how its folder is laid out.

    `root` is the folder that holds the images; None for sets that come with the project. Of a set without splits,
    the fractions `val` and `test` of its people (of its images, where no person is known) are set apart; of one
    with published splits, `val` of its training people, where it has no validation split itself.
    `urls` are existing WebDataset shards (paths or URLs, with brace ranges) where `adapter` is `webdataset`.
    Links that lead out of `root` are refused unless `follow_links`: a set that was downloaded could name any file.
    `images` is how many faces are made, and `seed` which ones, where `adapter` is `generated`.
    """

    name: str = "orl"
    adapter: str = "orl"
    root: str | None = None
    val: float = 0.0
    test: float = 0.0
    urls: str | None = None
    follow_links: bool = False
    images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError(f"dataset.images is {self.images}: must be at least 1")
        if self.seed < 0:
            raise ValueError(f"dataset.seed is {self.seed}: must not be negative")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise ValueError(
                f"dataset.name is {self.name!r}: use letters, digits, '-' and '_', as it names folders"
            )
        if re.search(r"//[^/]*:[^/]*@", self.urls or ""):
            raise ValueError(
                "dataset.urls has a password in it: give it by the environment, as AWS tools find it"
            )
        if self.val < 0 or self.test < 0 or self.val + self.test >= 1:
            raise ValueError(f"dataset.val {self.val} and dataset.test {self.test} leave nothing to train on")


@dataclass(frozen=True)
class Record:
    """One image: where it is, whose face it shows, and what is known of it.

    `box` (left, top, right, bottom; pixels of the file, right and bottom not included) is the part of it that is
    this record's image, where a file shows more than its face; it may reach over the border. `landmarks` are x0,
    y0, x1, y1 … in pixels of that part, counted from the centre of its top left pixel at (0, 0). `content` is the
    image file itself, where the set has none (pixels in a table): `source` then only names it. `name` is what the
    set's own lists call the image, where that is not `source`. `span` (first byte, number of bytes) is where in
    `source`, then a tar's path or URL, the image file lies. `labels` are class numbers (0 and up), `measures` any
    numbers, such as angles.
    """

    source: str
    split: str
    person: str | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    landmarks: tuple[float, ...] | None = None
    box: tuple[int, int, int, int] | None = None
    content: bytes | None = None
    name: str | None = None
    span: tuple[int, int] | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


def fraction(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone: the same on every machine, for ever."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def split_of(name: str, config: DatasetConfig) -> str:
    """The split of a person or image: by a hash of the name, so that new people never move the others."""
    place = fraction(f"split/{name}")
    if place < config.test:
        return "test"
    return "val" if place < config.test + config.val else "train"


def carved(split: str, name: str, config: DatasetConfig) -> str:
    """A published split, where `dataset.val` of the training part (by `name`: person or image) is set apart."""
    return "val" if split == "train" and fraction(f"split/{name}") < config.val else split


def expect(path: Path, what: str) -> Path:
    """`path`, if it is there.

    Raises:
        FileNotFoundError: it is not; the message says what was expected where.
        ValueError: it is a pipe or a device, which might be read for ever.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: not there ({what}); check dataset.root")
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: neither file nor folder ({what}); check dataset.root")
    return path


def image_files(root: Path) -> list[str]:
    """Every image below `root` by its suffix, as sorted paths relative to `root` with "/"; hidden ones are left out.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    found, folders = [], [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}{entry.name}/")
                elif splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and Path(entry).is_file():
                    found.append(f"{folder}{entry.name}")
    if not found:
        raise FileNotFoundError(
            f"{root}: no image in it (looked for {' '.join(sorted(IMAGE_SUFFIXES))}, at any depth); check dataset.root"
        )
    return sorted(found)


LARGEST = 2**31
"""No pixel, class or angle is beyond."""


def number(word: str) -> float:
    """A number of an annotation file. Raises ValueError where it is none, not finite, or beyond all sense."""
    value = float(word)
    if not -LARGEST < value < LARGEST:
        raise ValueError(f"{word[:80]}: no number that an image can have")
    return value


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """An annotation file, open for `csv` or by lines.

    Raises:
        ValueError: it turns out not to be UTF-8 text, or no table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: no table of comma-separated values ({error})") from None


def lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the line from 1, its words) of every line that is not blank; any white space parts words."""
    with opened(path) as stream:
        for place, line in enumerate(stream, start=1):
            if words := line.split():
                yield place, words


def malformed(path: Path, number: int, expected: str, found: object) -> ValueError:
    """The error for a line of an annotation file that is not as published."""
    return ValueError(f"{path}: line {number}: expected {expected}, found {str(found)[:80]!r}")


def around(points: tuple[float, ...], margin: float) -> tuple[int, int, int, int]:
    """The square box around the points x0, y0, x1 …, wider by `margin` of its side on each side, inside the image's
    top left border."""
    xs, ys = points[0::2], points[1::2]
    side = max(max(xs) - min(xs), max(ys) - min(ys)) * (1 + 2 * margin)
    left, top = (min(xs) + max(xs) - side) / 2, (min(ys) + max(ys) - side) / 2
    return max(0, round(left)), max(0, round(top)), round(left + side), round(top + side)


def cropped(points: tuple[float, ...], margin: float) -> tuple[tuple[int, int, int, int], tuple[float, ...]]:
    """`around` the points, and the points in the box's own pixels."""
    box = around(points, margin)
    return box, tuple(value - box[place % 2] for place, value in enumerate(points))


def root_of(config: DatasetConfig, raw: Path) -> Path:
    """The folder with the images: `dataset.root`, or the raw folder itself for sets that come with the project."""
    return raw if config.root is None else Path(config.root).expanduser()
