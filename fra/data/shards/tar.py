"""Writes one WebDataset tar shard: each image with its annotation as JSON. Equal records give equal bytes."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fra.data.images import ImageError, ImageInfo, crop, read_file, read_header
from fra.data.shards.strip_metadata import without_metadata
from fra.files import atomic, write_text

SUFFIX = {"jpeg": "jpg", "ppm": "pgm", "tiff": "tif"}
"""File formats (Pillow's names) whose usual file suffix differs from the name."""
FILE_COLUMNS = ("sha256", "bytes", "width", "height", "mode")
"""Manifest columns that are read from an image's bytes."""


@dataclass(frozen=True)
class ShardJob:
    """One shard to write.

    Attributes:
        name: File name of the shard.
        records: Its records, in the order of the shard.
        fingerprint: A hash of everything that the shard is made from.
        reproducible: Whether the records reveal every change of an image's bytes, so that an equal fingerprint means
            equal bytes.
        keep_metadata: Whether image files keep their metadata (place, time, camera).
        root: Folder with the image files.
        out: Folder for the shard.
        state: Folder for what is remembered of the shard (`<name>.json`).
    """

    name: str
    records: pd.DataFrame
    fingerprint: str
    reproducible: bool
    keep_metadata: bool
    root: Path
    out: Path
    state: Path


def annotation_json(records: pd.DataFrame) -> list[bytes]:
    """The JSON that each image has next to it in its shard: person, labels, groups and landmarks, as far as known."""
    known: list[dict[str, Any]] = [
        {} if pd.isna(person) else {"person": person} for person in records["person"]
    ]
    for column in [name for name in records.columns if name.startswith(("label.", "group."))]:
        kind, _, name = column.partition(".")
        for entry, value in zip(known, records[column].tolist(), strict=True):
            if not pd.isna(value):
                entry.setdefault(f"{kind}s", {})[name] = int(value)
    for entry, points in zip(known, records["landmarks"], strict=True):
        if points is not None:
            entry["landmarks"] = [round(float(value), 3) for value in points]
    return [json.dumps(entry, ensure_ascii=False).encode() for entry in known]


def tar_member(name: str, content: bytes) -> bytes:
    """A file in a tar: header, content, padding. Owner, mode and time are constants, the same on every machine."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uname, info.gname = len(content), 0o644, 0, "fra", "fra"
    return (
        info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + b"\0" * (-len(content) % 512)
    )


END = b"\0" * 1024
"""The end mark of a tar file."""


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


def write_shard(job: ShardJob) -> int:
    """Writes one shard, and what its images are into `state/<shard>.json`; returns the number of records.

    Images that cannot be decoded are left out. A shard without any decodable image is not written.
    """
    found: dict[str, list[Any]] = {name: [] for name in ("key", *FILE_COLUMNS, "error")}
    columns = {
        name: job.records[name].tolist() if name in job.records else [None] * len(job.records)
        for name in ("key", "source", "box", "span", "content")
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    digest, size = hashlib.sha256(), 0
    path = job.out / job.name
    with atomic(path) as partial, partial.open("wb", buffering=1 << 20) as stream:
        for row, annotation, file in zip(
            rows, annotation_json(job.records), read_images(job.root, rows), strict=True
        ):
            content, info, error = prepare(file, row["box"], job.keep_metadata)
            found["key"].append(row["key"])
            found["sha256"].append(hashlib.sha256(content).hexdigest())
            found["bytes"].append(len(content))
            found["width"].append(info.width if info else 0)
            found["height"].append(info.height if info else 0)
            found["mode"].append(info.mode if info else "")
            found["error"].append(error)
            if info:
                suffix = SUFFIX.get(info.format, info.format)
                image = tar_member(f"{row['key']}.{suffix}", content)
                sample = image + tar_member(f"{row['key']}.json", annotation)
                digest.update(sample)
                size += stream.write(sample)
        digest.update(END)
        stream.write(END)
    if size == 0:
        path.unlink(missing_ok=True)
    entry = {"fingerprint": job.fingerprint, "sha256": digest.hexdigest(), "bytes": size + len(END)}
    job.state.mkdir(parents=True, exist_ok=True)
    write_text(json.dumps({**entry, "found": found}), job.state / f"{job.name}.json")
    return len(job.records)


def prepare(
    file: bytes | ImageError, box: Sequence[int] | None, keep_metadata: bool
) -> tuple[bytes, ImageInfo | None, str | None]:
    """An image as it is stored in the shard (cropped to its `box`), and its properties or the reason of refusal."""
    try:
        if isinstance(file, ImageError):
            raise file
        whole = file if keep_metadata or box is not None else without_metadata(file)
        content = whole if box is None else crop(whole, box)
        return content, read_header(content), None
    except ImageError as error:
        return file if box is None and isinstance(file, bytes) else b"", None, str(error)
