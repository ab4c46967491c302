"""One WebDataset tar shard: images and, beside each, what is known of it. The same records give the same bytes."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fra.data.images import Facts, ImageError, cut, glance, read_file
from fra.data.shards.strip_metadata import without_metadata
from fra.files import atomic, write_text

SUFFIX = {"jpeg": "jpg", "ppm": "pgm", "tiff": "tif"}
"""File formats (Pillow's names) whose usual suffix is another word."""
FOUND = ("sha256", "bytes", "width", "height", "mode")
"""What the manifest says of an image's bytes."""


@dataclass(frozen=True)
class Job:
    """One shard to write: its name and records (in its order), folders, and the fingerprint to remember it by.

    `known`: the records say when each image's bytes change, so that the same fingerprint means the same bytes.
    `keep_metadata`: images keep what they say beside their picture (place, time, camera).
    """

    name: str
    records: pd.DataFrame
    fingerprint: str
    known: bool
    keep_metadata: bool
    root: Path
    out: Path
    state: Path


def beside(records: pd.DataFrame) -> list[bytes]:
    """What travels beside each image in its shard, as JSON: person, labels, landmarks, as far as they are known."""
    known: list[dict[str, Any]] = [
        {} if pd.isna(person) else {"person": person} for person in records["person"]
    ]
    for name in [column for column in records.columns if column.startswith("label.")]:
        for entry, value in zip(known, records[name].tolist(), strict=True):
            if not pd.isna(value):
                entry.setdefault("labels", {})[name.removeprefix("label.")] = int(value)
    for entry, points in zip(known, records["landmarks"], strict=True):
        if points is not None:
            entry["landmarks"] = [round(float(value), 3) for value in points]
    return [json.dumps(entry, ensure_ascii=False).encode() for entry in known]


def member(name: str, content: bytes) -> bytes:
    """A file in a tar: header, content, padding. Owner, mode and time are fixed: nothing of this machine gets in."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uname, info.gname = len(content), 0o644, 0, "fra", "fra"
    return (
        info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + b"\0" * (-len(content) % 512)
    )


END = b"\0" * 1024
"""What ends a tar."""


AT_ONCE = 64
"""Parts of a remote tar that are asked for together: an answer takes long, and little is in it."""


def parts(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    """The bytes that each row's `span` (first byte, size) cuts out of the local or remote file `source`."""
    from fsspec.core import url_to_fs

    for start in range(0, len(rows), AT_ONCE):
        chunk = rows[start : start + AT_ONCE]
        system = url_to_fs(chunk[0]["source"])[0]
        spans = [(int(row["span"][0]), int(row["span"][0]) + int(row["span"][1])) for row in chunk]
        paths = [url_to_fs(row["source"])[1] for row in chunk]
        yield from system.cat_ranges(paths, *map(list, zip(*spans, strict=True)), on_error="raise")


def files(root: Path, rows: list[dict[str, Any]]) -> Iterator[bytes | ImageError]:
    """Each record's image file: on disk, a part of a tar, or what the set had in a table; or why it is not read."""
    cut_out = parts([row for row in rows if row["span"] is not None])
    for row in rows:
        if row["span"] is not None:
            yield next(cut_out)
        elif row["content"] is not None:
            yield row["content"]
        else:
            yield read_or_refuse(root / row["source"])


def read_or_refuse(path: Path) -> bytes | ImageError:
    try:
        return read_file(path)
    except ImageError as refused:
        return refused


def write_shard(job: Job) -> int:
    """Writes one shard, and what was found into `state/<shard>.json`; returns the number of records.

    Images that cannot be decoded are left out. A shard without one good image is not written.
    """
    found: dict[str, list[Any]] = {name: [] for name in ("key", *FOUND, "error")}
    columns = {
        name: job.records[name].tolist() if name in job.records else [None] * len(job.records)
        for name in ("key", "source", "box", "span", "content")
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    digest, size = hashlib.sha256(), 0
    path = job.out / job.name
    with atomic(path) as partial, partial.open("wb", buffering=1 << 20) as stream:
        for row, annotation, file in zip(rows, beside(job.records), files(job.root, rows), strict=True):
            content, facts, error = look(file, row["box"], job.keep_metadata)
            found["key"].append(row["key"])
            found["sha256"].append(hashlib.sha256(content).hexdigest())
            found["bytes"].append(len(content))
            found["width"].append(facts.width if facts else 0)
            found["height"].append(facts.height if facts else 0)
            found["mode"].append(facts.mode if facts else "")
            found["error"].append(error)
            if facts:
                suffix = SUFFIX.get(facts.format, facts.format)
                both = member(f"{row['key']}.{suffix}", content) + member(f"{row['key']}.json", annotation)
                digest.update(both)
                size += stream.write(both)
        digest.update(END)
        stream.write(END)
    if size == 0:
        path.unlink(missing_ok=True)
    entry = {"fingerprint": job.fingerprint, "sha256": digest.hexdigest(), "bytes": size + len(END)}
    job.state.mkdir(parents=True, exist_ok=True)
    write_text(json.dumps({**entry, "found": found}), job.state / f"{job.name}.json")
    return len(job.records)


def look(
    file: bytes | ImageError, box: Sequence[int] | None, keep_metadata: bool
) -> tuple[bytes, Facts | None, str | None]:
    """An image as it goes into the shard (its `box` cut out), and what it is, or why it is none."""
    try:
        if isinstance(file, ImageError):
            raise file
        whole = file if keep_metadata or box is not None else without_metadata(file)
        content = whole if box is None else cut(whole, box)
        return content, glance(content), None
    except ImageError as refused:
        return file if box is None and isinstance(file, bytes) else b"", None, str(refused)
