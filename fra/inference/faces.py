"""Crops of the faces in photographs as files, with a table of where each comes from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from fra.data.datasets.record_table import keys_of
from fra.data.images import ImageError, decode, to_jpeg
from fra.faces import select
from fra.faces.detect import Pixels
from fra.faces.extract import FaceCrop
from fra.inference.detection import Detection, FaceFinder, FacesFound
from fra.inference.face_drawing import draw_faces
from fra.inference.image_files import File, Skipped, check_names, expand, find
from fra.inference.journal import Entry, stamp_of
from fra.inference.results_folder import Header, Photograph, Results, updated_folders
from fra.parallel import map_ahead, opencv_in_one_thread

TABLE = "faces.parquet"
COLUMNS = pa.schema(
    {
        "image": pa.string(),
        "face": pa.int64(),
        "crop": pa.string(),
        "box": pa.list_(pa.float64(), 4),
        "points": pa.list_(pa.float64(), 10),
        "score": pa.float64(),
        "sharpness": pa.float64(),
        "transform": pa.list_(pa.float64(), 6),
        "size": pa.int64(),
        "image_sha256": pa.string(),
    }
)
"""Columns of the table, one row per face: the photograph's name, the number of the face in it (the largest first), the
crop's file; box (left, top, width, height) and points (x0, y0 … y4) in pixels of the upright photograph; the transform
(2×3, row by row) from them to pixels of the crop; the crop's side; the SHA-256 of the photograph's file."""
ROWS_PER_GROUP = 1_000
"""Rows that are kept in memory until they are written."""
PHOTOS_AHEAD = 32
"""Photographs that are processed while an earlier one is not finished."""


class Photo(NamedTuple):
    """What became of one photograph: what goes into the journal, or why it is unreadable."""

    name: str
    entry: Entry | None = None
    unreadable: str | None = None


@dataclass
class Summary:
    """What became of photographs.

    Attributes:
        photos: How many there are.
        faces: How many faces were cropped.
        taken_over: Photographs whose crops an earlier run had written to the same folder.
        removed: Photographs of the earlier run that no longer exist; their crops are removed.
        skipped: The photographs that gave no face, with the reason.
    """

    photos: int = 0
    faces: int = 0
    taken_over: int = 0
    removed: int = 0
    skipped: Skipped = field(default_factory=Skipped)


def extract(
    patterns: Sequence[str], out: Path, detection: Detection, drawings: Path | None = None
) -> Summary:
    """Writes the crops of all faces in photographs as `<photograph>_face<number>.jpg`, and `faces.parquet`.

    Names are relative to the folder that was given, or to the one that contains all photographs. Crops are moved to
    `out` when all photographs are processed. After a run that was killed or interrupted, the next one with the same
    settings continues, with the same result as an undisturbed run. So does a run into the folder of an earlier one with
    the same settings and places: photographs that have not changed since are not read again, and what came from
    photographs that no longer exist is removed.

    Args:
        patterns: Files, folders, glob patterns or tar shards of this machine.
        out: A folder for crops and table (see `COLUMNS`): new, empty, or of an earlier run.
        detection: How faces are found, selected and cropped.
        drawings: Such a folder for the photographs with boxes, points and scores drawn in.

    Raises:
        FileNotFoundError: A path or pattern matches nothing, or the detector's weights are missing.
        ValueError: A folder to write holds something else, a place is a URL, or the name of a photograph is not UTF-8.
        OSError: A folder cannot be written.
    """
    check_local(patterns)
    folder = common_folder(patterns)
    outputs = [out] if drawings is None else [out, drawings]
    files = {os.path.relpath(file.name, folder): file for file in outside(find(patterns), outputs)}
    if not files:
        raise ValueError(f"{out}: all photographs that were given are in the folder of the crops")
    check_names(files)
    keys = keys_of(list(files))
    finder = FaceFinder(detection)
    summary = Summary(photos=len(files))
    photos = {file.name: Photograph(key, file.path) for file, key in zip(files.values(), keys, strict=True)}
    header = Header(
        settings_of(detection),
        code_digest(),
        [absolute(pattern) for pattern in patterns],
        os.path.relpath(drawings, out) if drawings else None,
    )
    with ExitStack() as stack:
        results = stack.enter_context(updated_folders(outputs, TABLE, header, photos))
        stack.enter_context(opencv_in_one_thread())

        def process(task: tuple[File, str]) -> Photo:
            return process_photo(*task, finder, results)

        tasks = zip(files.values(), keys, strict=True)
        done = stack.enter_context(closing(map_ahead(process, tasks, PHOTOS_AHEAD)))
        bar = tqdm(done, total=len(files), desc="faces", unit="photo", mininterval=1)
        write_table(record(bar, summary), detection, results.folders[0] / TABLE)
        summary.taken_over, summary.removed = len(results.taken_over), results.removed()
    return summary


def check_local(patterns: Sequence[str]) -> None:
    """Raises ValueError where a place is a URL: the next run could not see whether its files have changed."""
    for pattern in patterns:
        if "://" in pattern:
            raise ValueError(
                f"{pattern}: crops are written from files of this machine: download it first (`fra embed --detect` "
                "reads tar shards from URLs, and so does dvc repro with dataset.urls and dataset.faces=detect)"
            )


def common_folder(patterns: Sequence[str]) -> str:
    """The folder that contains all places; of a single folder, the folder itself."""
    paths = [path for pattern in patterns for path in expand(pattern)]
    folders = [path if path.is_dir() else path.parent for path in paths]
    return os.path.commonpath([absolute(folder) for folder in folders])


def outside(files: Iterable[File], folders: Sequence[Path]) -> Iterator[File]:
    """The files that are in none of the folders: a folder of results may be in the folder of the photographs."""
    below = tuple(f"{absolute(folder)}{os.sep}" for folder in folders)
    return (file for file in files if not absolute(file.path).startswith(below))


def absolute(path: str | Path) -> str:
    """An absolute path without `..`."""
    return os.path.normpath(Path(path).absolute())


def process_photo(file: File, key: str, finder: FaceFinder, results: Results) -> Photo:
    """Finds the faces of one photograph and writes their crops, named by `key`, unless an earlier run has done so.

    Args:
        file: The photograph.
        key: The name of its crops, without number and suffix.
        finder: Finds and crops faces.
        results: The folder of crops, and of drawings where they are wanted.
    """
    if (known := results.find(file.name)) is not None:
        return Photo(file.name, known)
    stamp = stamp_of(file.path)
    try:
        content = file.read()
        photo_HW3 = decode(content)
    except (ImageError, OSError) as error:
        return Photo(file.name, unreadable=str(error))
    found = finder(photo_HW3)
    folders = results.folders
    names = [f"{key}_face{number}.jpg" for number in range(len(found.crops))]
    written = [
        (0, name, write_jpeg(crop.pixels_HW3, folders[0] / name))
        for name, crop in zip(names, found.crops, strict=True)
    ]
    for folder in folders[1:]:
        written.append((1, f"{key}.jpg", write_jpeg(draw(photo_HW3, found), folder / f"{key}.jpg")))
    sha256 = hashlib.sha256(content).hexdigest()
    rows = [
        {"image": file.name, "face": number, "crop": name, **columns_of(crop), "image_sha256": sha256}
        for number, (name, crop) in enumerate(zip(names, found.crops, strict=True))
    ]
    entry = Entry(file.name, key, stamp, rows, found.reason, written)
    results.add(entry)
    return Photo(file.name, entry)


def draw(photo_HW3: Pixels, found: FacesFound) -> Pixels:
    """The photograph with all faces that were found."""
    return draw_faces(photo_HW3, [crop.face for crop in found.crops], [one.face for one in found.left_out])


def write_jpeg(pixels_HW3: Pixels, path: Path) -> int:
    """Writes pixels as a JPEG, as data sets store crops; returns the size of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(to_jpeg(pixels_HW3))


def settings_of(detection: Detection) -> dict[str, Any]:
    """How faces are found, selected and cropped."""
    return {"crop": detection.crop, **asdict(detection.config)}


def code_digest() -> str:
    """A hash of the code that finds and crops faces: another version may give other crops."""
    files = sorted(Path(select.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def columns_of(crop: FaceCrop) -> dict[str, Any]:
    """The columns of one crop."""
    return {
        "box": crop.face.box,
        "points": crop.face.points_52.ravel().tolist(),
        "score": crop.face.score,
        "sharpness": crop.sharpness,
        "transform": crop.transform_23.ravel().tolist(),
        "size": len(crop.pixels_HW3),
    }


def record(photos: Iterable[Photo], summary: Summary) -> Iterator[Mapping[str, Any]]:
    """The rows of all photographs; those without a row are added to `summary`."""
    for photo in photos:
        entry = photo.entry
        summary.skipped.add(photo.name, photo.unreadable, entry and entry.no_face)
        if entry is not None:
            summary.faces += len(entry.rows)
            yield from entry.rows


def write_table(rows: Iterable[Mapping[str, Any]], detection: Detection, path: Path) -> None:
    """Writes the table, `ROWS_PER_GROUP` rows at a time; its metadata `fra` says how faces were cropped."""
    schema = COLUMNS.with_metadata({"fra": json.dumps(settings_of(detection))})
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        waiting: list[Mapping[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting.clear()
        writer.write_table(pa.Table.from_pylist(waiting, schema))
