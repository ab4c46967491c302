"""Sets that consist of one folder per person: LFW and VGGFace2.

LFW: `lfw-deepfunneled/Name/Name_0001.jpg`, or one of its other versions (`LFW`); all of it is test data, as its pairs
serve only to test verification.
VGGFace2: `{train,test}/n000002/0001_01.jpg`; 8,631 and 500 people, 3.31 million images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, dirname

from fra.data.datasets.annotation_files import image_files, require, unnested
from fra.data.datasets.records import DatasetConfig, Record, split_off

LFW = ("lfw-deepfunneled", "lfw_funneled", "lfw")
"""Names of the folder with LFW's images: aligned by deep funneling, by funneling, and not aligned."""


def lfw(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of LFW in the folder `root`."""
    found = next((root / name for name in LFW if (root / name).exists()), root / LFW[0])
    top = unnested(require(found, "LFW's images, one folder per person"))
    for name in image_files(top, config):  # named as in `pairs.txt`
        yield Record(f"{top.relative_to(root).as_posix()}/{name}", "test", basename(dirname(name)), name=name)


def vggface2(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of VGGFace2 in the folder `root`."""
    require(root / "train", "VGGFace2's training images, one folder per person")
    for split in ("train", "test"):
        if (root / split).is_dir():
            for name in image_files(root / split, config):
                person = basename(dirname(name))
                yield Record(f"{split}/{name}", split_off(split, person, config), person)
