"""Records: one per image of a data set; with the settings that choose the data set, and the choice of splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetConfig:
    """One data set. `name` labels what is made from it; `adapter` says how its folder is laid out.

    `root` is the folder that holds the images; None for sets that come with the project. Of a set without splits,
    the fractions `val` and `test` of its people (of its images, where no person is known) are set apart; of one
    with published splits, `val` of its training people, where it has no validation split itself.
    `urls` are existing WebDataset shards (paths or URLs, with brace ranges) where `adapter` is `webdataset`.
    Links that lead out of `root` are refused unless `follow_links`: a set that was downloaded could name any file.
    `member` names the image of a sample in existing WebDataset shards, where it has several (`left.jpg`); by default
    the one without a further dot in its name (`jpg` before `seg.png`).
    `images` is how many faces are made, and `seed` which ones, where `adapter` is `generated`.
    """

    name: str = "orl"
    adapter: str = "orl"
    root: str | None = None
    val: float = 0.0
    test: float = 0.0
    urls: str | None = None
    follow_links: bool = False
    member: str | None = None
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
    """One image: where it is stored, whom it shows, and its annotations.

    Attributes:
        source: Path of the image file below the root; the path or URL of a tar where `span` is set; only a name where
            `content` is set.
        split: `train`, `val` or `test`.
        person: Identifier of the person, where known.
        labels: Class numbers (0 and up) by name.
        landmarks: x0, y0, x1, y1 … in pixels of the image (of `box`, where set). The centre of the top left pixel is
            (0, 0).
        box: Left, top, right, bottom of the face in pixels of the file (right and bottom excluded), where the file
            shows more than the face. It may extend beyond the image.
        content: The image file itself, for sets that store pixels in a table.
        name: What the set's own lists call the image, where that is not `source`.
        span: First byte and number of bytes of the image file inside the tar `source`.
        measures: Real numbers by name, such as angles.
        groups: Numbers by name that only tell which subset of the set the image belongs to. They are evaluated
            separately (`transfer.groups`), but not learnt, so that they need not occur in the training split.
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
    groups: Mapping[str, int] = field(default_factory=dict)


def hash_fraction(name: str) -> float:
    """A number in [0, 1) computed from `name` alone: the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def split_of(name: str, config: DatasetConfig) -> str:
    """The split of a person or image, chosen by a hash of its name: new people never move the others."""
    fraction = hash_fraction(f"split/{name}")
    if fraction < config.test:
        return "test"
    return "val" if fraction < config.test + config.val else "train"


def split_off(split: str, name: str, config: DatasetConfig) -> str:
    """A published split, or `val` for the share `dataset.val` of the training part.

    Args:
        split: The published split.
        name: The person or image, by whose hash the share is chosen.
        config: The data set.
    """
    return "val" if split == "train" and hash_fraction(f"split/{name}") < config.val else split


def root_of(config: DatasetConfig, raw: Path) -> Path:
    """The folder with the images: `dataset.root`, or the raw folder itself for sets that come with the project."""
    return raw if config.root is None else Path(config.root).expanduser()
