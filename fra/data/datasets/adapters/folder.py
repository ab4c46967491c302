"""Any folder of unlabelled images; images in the same sub-folder are taken to show the same person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname

from fra.data.datasets.annotation_files import image_files
from fra.data.datasets.records import DatasetConfig, Record, split_of


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    for source in image_files(root):
        person = dirname(source) or None
        yield Record(source, split_of(person or source, config), person)
