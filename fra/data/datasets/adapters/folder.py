"""Any folder of unlabelled images; images in the same sub-folder are taken to show the same person.

Where all images are in one folder, their people are unknown, and each image is assigned to a split by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname

from fra.data.datasets.annotation_files import image_files
from fra.data.datasets.records import DatasetConfig, Record, split_of


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    sources = image_files(root, config)
    people = {dirname(source) for source in sources}
    for source in sources:
        person = dirname(source) if len(people) > 1 else None
        yield Record(source, split_of(person or source, config), person or None)
