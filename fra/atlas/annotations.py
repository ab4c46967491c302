"""Annotations of the faces: from the pipeline's manifest and quarantine list, and from a table of labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fra.files import read_csv, read_parquet
from fra.gallery.label_table import COLUMNS, rows_of
from fra.validation.verdict import QUARANTINE_TYPES

NOT_QUARANTINED = "no"
RESERVED = {"key", "image", "face", "thumbnail", "x", "y", "cluster"}
"""Columns of the atlas that a table of labels cannot replace."""


@dataclass(frozen=True)
class Dataset:
    """A data set of the pipeline, whose images the atlas may show.

    Attributes:
        manifest: Its manifest.
        quarantine: Its quarantine list; None, or missing: not validated yet.
        shards: Folder of its tar shards.
        root: Folder of its images; None for an embedded set.
    """

    manifest: Path
    quarantine: Path | None
    shards: Path
    root: Path | None


def of_dataset(names: Sequence[str], dataset: Dataset) -> pd.DataFrame | None:
    """What the manifest says of images, one row per name; None where it lists none of them.

    Columns are `key`, `split`, `person`, `quarantined` ("no", or the reason), `label_…`, `group_…` and `measure_…`. An
    image is found by its key where it is in a tar shard of the set, and else by its path below the set's folder.
    """
    table = read_parquet(dataset.manifest)
    keys = [key_in_shard(name, dataset.shards) for name in names]
    if dataset.root is not None:
        root = dataset.root.resolve()
        once = table.drop_duplicates(
            "source", keep=False
        )  # a photograph with several faces has no single row
        of_source = dict(zip(once["source"], once["key"], strict=True))
        keys = [
            key if key is not None else of_source.get(below(name, root) or "")
            for key, name in zip(keys, names, strict=True)
        ]
    known = table.set_index("key").reindex(pd.Index(keys, dtype=object))
    found = known["split"].notna().to_numpy()
    if not found.any():
        return None
    kept = [str(name) for name in known if str(name).startswith(("label.", "group.", "measure."))]
    columns = known[["split", "person", *kept]].rename(columns=lambda name: name.replace(".", "_"))
    columns = columns.reset_index(drop=True).convert_dtypes()  # labels with gaps stay whole numbers
    columns.insert(
        0,
        "key",
        pd.Series(
            [key if has else name for key, has, name in zip(keys, found, names, strict=True)], dtype="string"
        ),
    )
    columns["quarantined"] = pd.Series(quarantine_reasons(keys, found, dataset.quarantine), dtype="string")
    return columns


def quarantine_reasons(
    keys: Sequence[str | None], found: np.ndarray, quarantine: Path | None
) -> list[str | None]:
    """Why each image is quarantined; "no" where it is not, None where it is unknown."""
    if quarantine is None or not quarantine.is_file():
        return [None] * len(keys)
    listed = read_csv(quarantine, QUARANTINE_TYPES)
    reasons = dict(zip(listed["key"], listed["reason"], strict=True))
    return [
        reasons.get(key or "", NOT_QUARANTINED) if known else None
        for key, known in zip(keys, found, strict=True)
    ]


def key_in_shard(name: str, shards: Path) -> str | None:
    """The key of an image in a tar shard of the folder `shards`; None for another image."""
    shard, inside, member = name.partition(".tar/")
    if not inside or Path(shard).parent.resolve() != shards.resolve():
        return None
    return re.sub(r"\.[^./]*$", "", member)


def below(name: str, root: Path) -> str | None:
    """The path of a file relative to the folder `root`; None where it is elsewhere."""
    path = Path(name).resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else None


class LabelTable(NamedTuple):
    """A CSV file with one line per image; `by` is its column that names images, `others` are the ones to show."""

    table: pd.DataFrame
    by: str
    others: list[str]


def read_table(labels: Path) -> LabelTable:
    """Returns a CSV file with a column `image` or `key` and any others.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is no CSV table, or has no such column or no other one.
    """
    if not labels.is_file():
        raise FileNotFoundError(f"{labels}: no such file of labels")
    try:
        table = pd.read_csv(labels, dtype={"image": "string", "key": "string"}, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise ValueError(f"{labels}: not a CSV table: {' '.join(str(error).split())}") from None
    by = next((column for column in COLUMNS if column in table), None)
    others = [str(column) for column in table if column not in RESERVED]
    if by is None or not others:
        raise ValueError(
            f"{labels}: its columns are {', '.join(map(str, table))}; it needs `image` (or `key`) and at least one "
            "other column"
        )
    return LabelTable(table, by, others)


def read_labels(labels: Path, names: Sequence[str], keys: Sequence[str]) -> pd.DataFrame:
    """The columns of a CSV file with one line per image, in the order of `names`.

    Args:
        labels: The file, see `read_table` and `fra.gallery.label_table.rows_of`.
        names: Names of the images.
        keys: Their keys in the data set.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It has the wrong columns, names an image twice, or none of the images.
    """
    table, by, others = read_table(labels)
    rows = rows_of(labels, by, table[by].tolist(), names, keys)
    columns = table[others].reindex([-1 if row is None else row for row in rows]).reset_index(drop=True)
    return columns.rename(columns=lambda name: re.sub(r"\W", "_", str(name)))
