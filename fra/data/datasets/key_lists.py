"""Lists of keys: the images that a data set keeps (`dataset.only`) or leaves out (`dataset.exclude`)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fra.data.datasets.records import SPLITS, DatasetConfig
from fra.files import read_csv, write_parquet
from fra.wording import counted

logger = logging.getLogger(__name__)

LEFT_OUT = "left_out.parquet"
"""Next to the records: the images that lists leave out, so that they and the people in them are still found."""


def select(table: pd.DataFrame, config: DatasetConfig, trains: bool = False) -> pd.DataFrame:
    """The records that the lists of a data set keep; the table itself where it has no list.

    Keys that are not in the data set are counted in a warning: people may have been withdrawn, or files deleted, since
    the list was made.

    Args:
        table: All records, see `fra.data.datasets.ingest.ingest`.
        config: The data set.
        trains: Whether the set is pre-trained on, so that a training image must be left.

    Raises:
        FileNotFoundError: A list is missing.
        ValueError: A file is not a list of keys, none of its keys is in the data set, or no image is left.
    """
    kept = np.ones(len(table), dtype=bool)
    for name, path in (("only", config.only), ("exclude", config.exclude)):
        if path is None:
            continue
        listed = is_listed(table["key"], Path(path), f"{config.name}: {name}={path}")
        kept &= listed if name == "only" else ~listed
    if config.only is None and config.exclude is None:
        return table
    lists = " and ".join(
        f"{name}={path}" for name, path in (("only", config.only), ("exclude", config.exclude)) if path
    )
    if not kept.any():
        raise ValueError(f"{config.name}: {lists}: no image is left of {len(table):,}")
    selected = table[kept].reset_index(drop=True)
    for split in SPLITS:
        if (table["split"] == split).any() and not (selected["split"] == split).any():
            text = f"{config.name}: {lists}: no image of the split {split} is left"
            if split == "train" and trains:
                raise ValueError(text)
            logger.warning(text)
    logger.info("%s: %s: %s of %s images are left", config.name, lists, f"{kept.sum():,}", f"{len(kept):,}")
    return selected


def write_left_out(table: pd.DataFrame, path: Path) -> None:
    """Writes the images, with their people, that lists leave out; without any, there is no file."""
    if table.empty:
        path.unlink(missing_ok=True)
        return
    names = [name for name in ("key", "person", "source", "photo.sha256") if name in table]
    write_parquet(table[names], path)


def is_listed(keys: pd.Series, path: Path, where: str) -> np.ndarray:
    """Whether each key is in the list `path`.

    Raises:
        FileNotFoundError: The list is missing.
        ValueError: It is not a list of keys, or none of its keys is among `keys`.
    """
    listed = pd.Index(read_keys(path)).unique()
    unknown = listed[~listed.isin(keys)]
    if len(unknown):
        named = ", ".join(map(repr, unknown[:3]))
        if len(unknown) == len(listed):
            raise ValueError(
                f"{where}: none of its {counted(len(listed), 'key')} is in the data set, such as {named}; a key of the "
                f"data set is {str(keys.iloc[0])!r} (`fra atlas` without a path shows the images with their keys)"
            )
        logger.warning(
            "%s: not in the data set: %s of its %s (%s)",
            where,
            f"{len(unknown):,}",
            counted(len(listed), "key"),
            named,
        )
    return keys.isin(listed).to_numpy(dtype=bool)


def read_keys(path: Path) -> list[str]:
    """The keys in a file: text with one key a line, or a table (CSV, JSON, JSONL, Parquet) with a column `key`.

    Of a text, lines that begin with "# " are comments.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not such a list.
    """
    if path.suffix not in READERS:
        raise ValueError(f"{path}: a list of keys must end in {', '.join(READERS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list of keys")
    try:
        keys = READERS[path.suffix](path)
    except (ValueError, OSError, RecursionError, pa.ArrowException) as error:
        raise ValueError(f"{path}: not a list of keys: {' '.join(str(error).split())}") from None
    if wrong := [key for key in keys if not isinstance(key, str)]:
        raise ValueError(f"{path}: not a list of keys: {wrong[0]!r} is no text")
    return keys


def _text(path: Path) -> list[Any]:
    return [line for line in _lines(path) if not line.startswith("# ")]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def _csv(path: Path) -> list[Any]:
    return read_csv(path, {"key": "str"}, others="str")["key"].tolist()


def _json(path: Path) -> list[Any]:
    return _keys_of(json.loads(path.read_text(encoding="utf-8-sig")))


def _json_lines(path: Path) -> list[Any]:
    return _keys_of([json.loads(line) for line in _lines(path)])


def _keys_of(rows: Any) -> list[Any]:
    if not isinstance(rows, list):
        raise ValueError("it holds no list of rows")
    if any(isinstance(row, dict) and "key" not in row for row in rows):
        raise ValueError("a row has no `key`")
    return [row["key"] if isinstance(row, dict) else row for row in rows]


def _parquet(path: Path) -> list[Any]:
    names = pq.read_schema(path).names
    if "key" not in names:
        raise ValueError(f"it has no column `key`, but {', '.join(names)}")
    keys: list[Any] = pq.read_table(path, columns=["key"])["key"].to_pylist()
    return keys


READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".txt": _text,
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
"""How each kind of file is read."""
