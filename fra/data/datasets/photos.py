"""Searches photographs for faces, each only once: what was found is remembered until the photograph changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import pandas as pd
from tqdm import tqdm

from fra.data.datasets.read import absolute_sources, read_images, rows_to_read
from fra.data.executors import Executor, local
from fra.data.images import ImageError, decode
from fra.faces.config import MIN_SCORE
from fra.faces.detect import Detector
from fra.faces.detectors import DetectorName, detector
from fra.faces.select import find
from fra.files import read_parquet, write_parquet
from fra.parallel import opencv_in_one_thread

PHOTOS_PER_JOB = 100
"""Photographs that one job searches: what an interrupted run repeats at most, for each worker."""
CACHE, PARTS = "photos.parquet", "part-*.parquet"
FOUND = ("photo", "sha256", "faces", "problem")
"""Columns of what is known of a photograph: its identity, the SHA-256 of its bytes, its faces (see
`fra.faces.select.from_numbers`), and why it cannot be decoded."""


@dataclass(frozen=True)
class PhotoJob:
    """Photographs to search.

    Attributes:
        photos: Their records, with the column `photo`.
        root: Folder with the image files.
        out: The parquet file to write, with the columns `FOUND`.
        detector: The model that finds the faces.
    """

    photos: pd.DataFrame
    root: Path
    out: Path
    detector: DetectorName

    def absolute(self) -> Self:
        """The job with absolute paths, for a process whose current folder is another one."""
        return replace(
            self,
            photos=absolute_sources(self.photos),
            root=self.root.resolve(),
            out=self.out.resolve(),
        )


def search_photos(
    photos: pd.DataFrame, root: Path, cache: Path, name: DetectorName, executor: Executor | None = None
) -> pd.DataFrame:
    """The faces in photographs: the columns `FOUND`, one row per row of `photos`.

    Args:
        photos: Records (see `fra.data.datasets.ingest.ingest`).
        root: Folder with the image files.
        cache: Folder that only this function uses. It must be another one for another detector.
        name: The model that finds the faces.
        executor: Where photographs are searched; processes of this machine by default.

    Raises:
        FileNotFoundError: A photograph that was listed no longer exists.
    """
    listed = photos.assign(photo=identities(photos, root))
    different = listed.drop_duplicates("photo")
    known = read_cache(cache)
    unknown = different[~different["photo"].isin(known["photo"])]
    jobs = [
        job_of(unknown.iloc[start : start + PHOTOS_PER_JOB], root, cache, name)
        for start in range(0, len(unknown), PHOTOS_PER_JOB)
    ]
    with tqdm(total=len(different), unit="photo", desc="faces", mininterval=1) as bar:
        bar.update(len(different) - len(unknown))
        for done in (executor or local(0))(search, jobs):
            bar.update(done)
    found = read_cache(cache)
    found = found[found["photo"].isin(different["photo"])].sort_values("photo", ignore_index=True)
    write_parquet(found, cache / CACHE)  # without photographs that are gone
    for part in (*cache.glob(PARTS), *cache.glob(".part-*")):  # also what a killed worker left
        part.unlink()
    return listed[["photo"]].merge(found, on="photo", how="left")


def identities(photos: pd.DataFrame, root: Path) -> list[str]:
    """A hash of each photograph: of its place, size and time of change where the record has them, else of its bytes."""
    columns = [photos[name].tolist() for name in ("bytes", "modified")]
    found = []
    for row, size, modified in zip(rows_to_read(photos), *columns, strict=True):
        if row["content"] is not None:
            source = row["content"]
        elif pd.isna(modified):
            source = (root / row["source"]).read_bytes()
        else:
            span = "" if row["span"] is None else " ".join(map(str, row["span"]))
            source = f"{row['source']}\0{span}\0{size}\0{modified}".encode()
        found.append(hashlib.blake2b(source, digest_size=16).hexdigest())
    return found


def job_of(photos: pd.DataFrame, root: Path, cache: Path, detector: DetectorName) -> PhotoJob:
    """The job that searches some photographs; its file is named by them."""
    name = hashlib.blake2b("".join(photos["photo"]).encode(), digest_size=16).hexdigest()
    return PhotoJob(photos, root, cache / f"part-{name}.parquet", detector)


def read_cache(cache: Path) -> pd.DataFrame:
    """What was found in earlier runs, finished or not; a damaged file counts as missing."""
    tables = [table_of([])]
    for file in (cache / CACHE, *sorted(cache.glob(PARTS))):
        with suppress(FileNotFoundError, ValueError):
            tables.append(read_parquet(file, columns=list(FOUND)))
    return pd.concat(tables, ignore_index=True).drop_duplicates("photo", ignore_index=True)


def search(job: PhotoJob) -> int:
    """Searches the photographs of a job and writes what was found; returns their number."""
    model = detector(job.detector, MIN_SCORE)
    files = read_images(job.root, rows_to_read(job.photos))
    with opencv_in_one_thread():  # photographs are the parallel part
        rows = [describe(photo, file, model) for photo, file in zip(job.photos["photo"], files, strict=True)]
    job.out.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(table_of(rows), job.out)
    return len(rows)


def describe(photo: str, file: bytes | ImageError, model: Detector) -> tuple[object, ...]:
    """What is known of one photograph: the values of `FOUND`."""
    if isinstance(file, ImageError):
        return photo, None, [], str(file)
    sha256 = hashlib.sha256(file).hexdigest()
    try:
        pixels = decode(file)
    except ImageError as error:
        return photo, sha256, [], str(error)
    numbers = [number for found in find(pixels, model) for number in found.numbers()]
    return photo, sha256, numbers, None


def table_of(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    """Values of `FOUND` as a table."""
    text: Callable[[list[Any]], Any] = partial(pd.array, dtype="string")
    photo, sha256, faces, problem = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    )
    return pd.DataFrame(
        {
            "photo": text(photo),
            "sha256": text(sha256),
            "faces": pd.Series(faces, dtype=object),
            "problem": text(problem),
        }
    )
