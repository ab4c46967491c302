"""Any folder of unlabelled images; images that share a sub-folder are taken for the same person's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fra.data.records import DatasetConfig, Record, image_files, split_of


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    for path in image_files(root):
        source = path.relative_to(root)
        person = source.parent.as_posix() if len(source.parts) > 1 else None
        yield Record(source.as_posix(), split_of(person or source.as_posix(), config), person)
