"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What `OSError.errno` says where the disk, a quota or a limit (`ulimit -f`) has no room for a file."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; moved into its place at the end, removed if anything goes wrong.

    It always has the same name: what a killed process left is written over. Who else writes `path` waits; the lock is
    the system's, so whoever dies gives it back.

    Raises:
        OSError: there is no room for it. It names `path`, in whatever words a library said so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with _held(partial):
        try:
            yield partial
            os.replace(partial, path)
        except Exception as error:
            if (number := _no_room(error, partial)) is None:
                raise
            remedy = "make room for it (disk, quota, ulimit -f), then run it again"
            raise OSError(number, f"{os.strerror(number)}: {remedy}", str(path)) from error
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Holds the lock on the file `partial`, which is made where it is missing."""
    while True:
        with partial.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if partial.exists() and partial.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                yield
                return
        # else whoever held it has moved it into its place meanwhile


def _no_room(error: Exception, partial: Path) -> int | None:
    """Which of `NO_ROOM` broke off the writing of a file; None where there is room.

    Python and pyarrow say so by number. NumPy, safetensors and torch have words of their own, or none: then one more
    block is tried.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        try:
            with partial.open("ab") as file:
                file.write(bytes(4096))
        except OSError as refused:
            number = refused.errno
    return number if number in NO_ROOM else None


def write_text(text: str, path: Path) -> None:
    """Writes a text as UTF-8."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(value: Any, path: Path) -> None:
    """Writes `value` as sorted, indented JSON: the same value, the same bytes."""
    write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", path)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Writes a table: the same rows, the same bytes, with checksums. Lists of numbers are stored as float32."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    for place, column in enumerate(arrow.schema):
        if column.name == "landmarks":
            values = arrow.column(place).cast(pa.list_(pa.float32()))
            arrow = arrow.set_column(place, pa.field("landmarks", pa.list_(pa.float32())), values)
    with atomic(path) as partial:
        pq.write_table(
            arrow.replace_schema_metadata(None), partial, compression="zstd", write_page_checksum=True
        )


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Reads a table, and compares its checksums.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no table, or not the bytes that were written.
    """
    try:
        return pd.read_parquet(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such table: `dvc repro` makes it") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged, or no table ({error}): `dvc repro` makes it again") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_each(paths: Iterable[Path]) -> dict[Path, str]:
    """The SHA-256 of each file, some at a time on all cores (hashing lets go of the interpreter)."""
    files = list(paths)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(files, pool.map(sha256, files), strict=True))
