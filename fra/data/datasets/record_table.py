"""Records as a table, with a unique key per image."""

from __future__ import annotations

from collections import Counter
from posixpath import join, split, splitext
from typing import Any

import pandas as pd

from fra.data.datasets.records import Record, hash_fraction

FileStamp = tuple[int, int]
"""Size of an image file in bytes, and a number that changes with its content (such as its modification time)."""


def keys_of(sources: list[str]) -> list[str]:
    """A unique key for each source: its path without the suffix.

    WebDataset ends a key at the first dot of the file name, so further dots become underscores. Where different
    sources would get the same key, a hash of the source is added; where a source is listed several times (several
    faces in one image), its number.
    """
    parts = [split(source) for source in sources]
    stems = [join(folder, splitext(file)[0].replace(".", "_")) for folder, file in parts]
    faces = Counter(sources)
    files: dict[str, set[str]] = {}
    for stem, source in zip(stems, sources, strict=True):
        files.setdefault(stem, set()).add(source)
    seen: Counter[str] = Counter()
    keys = []
    for stem, source in zip(stems, sources, strict=True):
        key = stem if len(files[stem]) == 1 else f"{stem}_{hash_digits(source)}"
        keys.append(key if faces[source] == 1 else f"{key}_face{seen[source]}")
        seen[source] += 1
    return without_duplicates(keys, sources)


def hash_digits(source: str) -> str:
    """Twelve decimal digits that depend on the source alone."""
    return f"{hash_fraction(source):.12f}"[2:]


def without_duplicates(keys: list[str], sources: list[str]) -> list[str]:
    """The keys, with a hash of the source added to those that occur several times.

    An example is `a_face0`, if `a.jpg` is listed twice and there is an `a_face0.jpg`.
    """
    salt = ""
    while duplicates := {key for key, count in Counter(keys).items() if count > 1}:
        keys = [
            f"{key}_{hash_digits(source + salt)}" if key in duplicates else key
            for key, source in zip(keys, sources, strict=True)
        ]
        salt += "\0"
    return keys


def table_of(records: list[Record], stamps: list[FileStamp | None]) -> pd.DataFrame:
    """The records as a table (see `fra.data.datasets.ingest.ingest`); optional columns only where a record has them."""
    text: dict[str, list[str | None]] = {
        "key": [*keys_of([record.name or record.source for record in records])],
        "source": [record.source for record in records],
        "split": [record.split for record in records],
        "person": [record.person for record in records],
    }
    numbers: dict[str, list[int | None]] = {
        "bytes": [stamp and stamp[0] for stamp in stamps],
        "modified": [stamp and stamp[1] for stamp in stamps],
    }
    for name in sorted({name for record in records for name in record.labels}):
        numbers[f"label.{name}"] = [record.labels.get(name) for record in records]
    for name in sorted({name for record in records for name in record.groups}):
        numbers[f"group.{name}"] = [record.groups.get(name) for record in records]
    measures = {
        f"measure.{name}": [record.measures.get(name) for record in records]
        for name in sorted({name for record in records for name in record.measures})
    }
    if any(record.video for record in records):
        text["photo.video"] = [record.video for record in records]
        measures["photo.seconds"] = [record.seconds for record in records]
    others: dict[str, list[Any]] = {
        "landmarks": [record.landmarks and list(record.landmarks) for record in records],
        "box": [record.box and list(record.box) for record in records],
        "span": [record.span and list(record.span) for record in records],
        "content": [record.content for record in records],
    }
    return pd.DataFrame(
        {name: pd.array(values, dtype="string") for name, values in text.items()}
        | {name: pd.array(values, dtype="Int64") for name, values in numbers.items()}
        | {name: pd.array(values, dtype="Float64") for name, values in measures.items()}
        | {
            name: pd.Series(values, dtype=object)
            for name, values in others.items()
            if name == "landmarks" or any(value is not None for value in values)
        }
    )
