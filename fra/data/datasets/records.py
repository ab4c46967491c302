"""Records: one per image of a data set; with the settings that choose the data set, and the choice of splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pydantic
from pydantic import PositiveFloat, PositiveInt

from fra.config import CHECKED, Seed, Share
from fra.faces.crop import CropKind

SPLITS = ("train", "val", "test")
SECRET = pydantic.ConfigDict(**CHECKED, hide_input_in_errors=True)
"""A URL may have a password in it, which no message may repeat."""


@pydantic.dataclasses.dataclass(frozen=True, config=SECRET)
class DatasetConfig:
    """One data set (section `dataset` and entries of `benchmarks` in params.yaml)."""

    name: str = "orl"
    """Name of the data set and of the folders made from it: letters, digits, "-" and "_"."""
    adapter: str = "orl"
    """Layout of the folder: a module of fra.data.datasets.adapters."""
    root: str | None = None
    """Folder that holds the images; null for data sets that come with the project."""
    val: Share = 0.0
    """Share of the training subjects (or images of unknown subjects) for validation, where the set has none."""
    test: Share = 0.0
    """Share of the subjects (or images of unknown subjects) for test, where the set has no splits."""
    urls: str | None = None
    """Existing WebDataset shards: paths or URLs with brace ranges, for adapter=webdataset."""
    follow_links: bool = False
    """Follow symbolic links out of root; refused by default, as a downloaded set could link to any file."""
    member: str | None = None
    """Image of a sample with several, such as left.jpg; null: the one without a further dot (jpg before seg.png)."""
    faces: Literal["as_is", "detect"] = "as_is"
    """What the files show: faces that fill the image (as_is), or photographs in which faces are found and cropped."""
    crop: CropKind = "box"
    """How found faces are cropped: the square around them, or aligned by eyes, nose and mouth."""
    frames_per_second: PositiveFloat | None = None
    """Frames that are taken from each video of the folder; null: videos are left out."""
    only: str | None = None
    """List of the images to take, by key (.txt, or a table with a column `key`); null: all."""
    exclude: str | None = None
    """List of the images to leave out, by key, in the same formats; null: none."""
    images: PositiveInt | None = None
    """Number of faces that adapter=generated makes."""
    seed: Seed = 0
    """Seed of the faces that adapter=generated makes."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise ValueError(f"name is {self.name!r}: use letters, digits, '-' and '_', as it names folders")
        if re.search(r"//[^/]*:[^/]*@", self.urls or ""):
            raise ValueError("urls has a password in it: put it into the environment, as AWS tools find it")
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave no training images")


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
        video: Path of the video below the root, of which the image is a frame; `source` is then the tar of its frames.
        seconds: Time of the frame since the first one of the video.
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
    video: str | None = None
    seconds: float | None = None


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
