"""Writes one WebDataset tar shard: each image with its annotation as JSON. Equal records give equal bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from fra.data.datasets.read import absolute_sources, read_images, rows_to_read
from fra.data.images import ImageError, ImageInfo, crop, decode, read_header, to_jpeg
from fra.data.shards.strip_metadata import without_metadata
from fra.faces.crop import Transform
from fra.faces.crop import crop as crop_face
from fra.files import TAR_END, atomic, tar_member, write_text

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

    def absolute(self) -> Self:
        """The job with absolute paths, for a process whose current folder is another one."""
        return replace(
            self,
            records=absolute_sources(self.records),
            root=self.root.resolve(),
            out=self.out.resolve(),
            state=self.state.resolve(),
        )


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


def write_shard(job: ShardJob) -> int:
    """Writes one shard, and what its images are into `state/<shard>.json`; returns the number of records.

    Images that cannot be decoded are left out. A shard without any decodable image is not written.
    """
    found: dict[str, list[Any]] = {name: [] for name in ("key", *FILE_COLUMNS, "error")}
    columns = [
        job.records[name].tolist() if name in job.records else [None] * len(job.records)
        for name in ("key", "box", "face.transform", "face.size")
    ]
    digest, size = hashlib.sha256(), 0
    path = job.out / job.name
    with atomic(path) as partial, partial.open("wb", buffering=1 << 20) as stream:
        for key, box, transform, face_size, annotation, file in zip(
            *columns,
            annotation_json(job.records),
            read_images(job.root, rows_to_read(job.records)),
            strict=True,
        ):
            part = None if transform is None else FaceCrop(np.reshape(transform, (2, 3)), int(face_size))
            content, info, error = prepare(file, part or box, job.keep_metadata)
            found["key"].append(key)
            found["sha256"].append(hashlib.sha256(content).hexdigest())
            found["bytes"].append(len(content))
            found["width"].append(info.width if info else 0)
            found["height"].append(info.height if info else 0)
            found["mode"].append(info.mode if info else "")
            found["error"].append(error)
            if info:
                suffix = SUFFIX.get(info.format, info.format)
                image = tar_member(f"{key}.{suffix}", content)
                sample = image + tar_member(f"{key}.json", annotation)
                digest.update(sample)
                size += stream.write(sample)
        digest.update(TAR_END)
        stream.write(TAR_END)
    if size == 0:
        path.unlink(missing_ok=True)
    entry = {"fingerprint": job.fingerprint, "sha256": digest.hexdigest(), "bytes": size + len(TAR_END)}
    job.state.mkdir(parents=True, exist_ok=True)
    write_text(json.dumps({**entry, "found": found}), job.state / f"{job.name}.json")
    return len(job.records)


class FaceCrop(NamedTuple):
    """A face to crop out of a photograph: the transform (2, 3) to pixels of the crop, and the crop's side."""

    transform_23: Transform
    size: int


def prepare(
    file: bytes | ImageError, part: FaceCrop | Sequence[int] | None, keep_metadata: bool
) -> tuple[bytes, ImageInfo | None, str | None]:
    """An image as it is stored in the shard, and its properties or the reason of refusal.

    Args:
        file: The image file, or why it cannot be read.
        part: What is cropped out of it: a face, or a box (left, top, right, bottom); None for the whole file.
        keep_metadata: Whether a whole file keeps its metadata.
    """
    try:
        if isinstance(file, ImageError):
            raise file
        if isinstance(part, FaceCrop):
            content = to_jpeg(crop_face(decode(file), part.transform_23, part.size))
        elif part is not None:
            content = crop(file, part)
        else:
            content = file if keep_metadata else without_metadata(file)
        return content, read_header(content), None
    except ImageError as error:
        return file if part is None and isinstance(file, bytes) else b"", None, str(error)
