"""The bytes of records' images: files on disk, parts of local or remote tars, or the record itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fra.data.images import ImageError, read_file

RANGES_PER_REQUEST = 64
"""Byte ranges of a remote tar that are requested together, as latency dominates small answers."""


def read_spans(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    """The bytes at each row's `span` (first byte, size) in the local or remote file `source`."""
    from fsspec.core import url_to_fs

    for start in range(0, len(rows), RANGES_PER_REQUEST):
        chunk = rows[start : start + RANGES_PER_REQUEST]
        system = url_to_fs(chunk[0]["source"])[0]
        spans = [(int(row["span"][0]), int(row["span"][0]) + int(row["span"][1])) for row in chunk]
        paths = [url_to_fs(row["source"])[1] for row in chunk]
        yield from system.cat_ranges(paths, *map(list, zip(*spans, strict=True)), on_error="raise")


def read_images(root: Path, rows: list[dict[str, Any]]) -> Iterator[bytes | ImageError]:
    """Each record's image file (from disk, a part of a tar, or the record itself), or why it cannot be read."""
    spans = read_spans([row for row in rows if row["span"] is not None])
    for row in rows:
        if row["span"] is not None:
            yield next(spans)
        elif row["content"] is not None:
            yield row["content"]
        else:
            yield read_or_error(root / row["source"])


def read_or_error(path: Path) -> bytes | ImageError:
    """The bytes of an image file, or why it is not read."""
    try:
        return read_file(path)
    except ImageError as error:
        return error


def rows_to_read(records: pd.DataFrame) -> list[dict[str, Any]]:
    """What `read_images` needs of each record: source, span and content."""
    columns = [
        records[name].tolist() if name in records else [None] * len(records)
        for name in ("source", "span", "content")
    ]
    return [
        {"source": source, "span": span, "content": content}
        for source, span, content in zip(*columns, strict=True)
    ]


def absolute_sources(records: pd.DataFrame) -> pd.DataFrame:
    """The records with absolute paths of local tars, for a process whose current folder is another one."""
    if "span" not in records:
        return records
    local = records["span"].notna() & ~records["source"].str.contains("://", regex=False)
    return records.assign(
        source=records["source"].mask(local, records["source"].map(lambda path: str(Path(path).resolve())))
    )
