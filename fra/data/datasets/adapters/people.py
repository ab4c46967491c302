"""Sets that are nothing but a folder a person: LFW and VGGFace2.

LFW: `lfw-deepfunneled/Name/Name_0001.jpg`; all of it is test data, as its pairs are for verification alone.
VGGFace2: `{train,test}/n000002/0001_01.jpg`; 8,631 and 500 people, 3.31 million images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, dirname

from fra.data.datasets.records import DatasetConfig, Record, carved, expect, image_files


def lfw(root: Path, config: DatasetConfig) -> Iterator[Record]:
    top = expect(root / "lfw-deepfunneled", "LFW's images, one folder a person")
    for name in image_files(top):  # as `pairs.txt` has it
        yield Record(f"{top.name}/{name}", "test", basename(dirname(name)), name=name)


def vggface2(root: Path, config: DatasetConfig) -> Iterator[Record]:
    expect(root / "train", "VGGFace2's training images, one folder a person")
    for split in ("train", "test"):
        if (root / split).is_dir():
            for name in image_files(root / split):
                person = basename(dirname(name))
                yield Record(f"{split}/{name}", carved(split, person, config), person)
