"""Any folder of unlabelled images; images that share a sub-folder are taken for the same person's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname

from fra.data.datasets.records import DatasetConfig, Record, image_files, split_of


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    for source in image_files(root):
        person = dirname(source) or None
        yield Record(source, split_of(person or source, config), person)
