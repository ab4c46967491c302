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
from fra.files import new_folders
from fra.inference.detection import Detection, FaceFinder, FacesFound, opencv_in_one_thread
from fra.inference.face_drawing import draw_faces
from fra.inference.image_files import File, Skipped, check_names, expand, find
from fra.inference.journal import Entry, Journal, open_journal, stamp_of
from fra.parallel import map_ahead

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
ROWS_PER_GROUP = 10_000
"""Rows that are kept in memory until they are written."""
PHOTOS_AHEAD = 32
"""Photographs that are processed while an earlier one is not finished."""


JOURNAL = "journal.jsonl"
"""The file in the temporary folder with what is finished, see `fra.inference.journal`."""


class Photo(NamedTuple):
    """What became of one photograph: what goes into the journal, or why it is unreadable."""

    name: str
    entry: Entry | None = None
    unreadable: str | None = None


@dataclass
class Summary:
    """How many photographs were read and faces cropped, and the photographs that gave none."""

    photos: int = 0
    faces: int = 0
    skipped: Skipped = field(default_factory=Skipped)


def extract(
    patterns: Sequence[str], out: Path, detection: Detection, drawings: Path | None = None
) -> Summary:
    """Writes the crops of all faces in photographs as `<photograph>_face<number>.jpg`, and `faces.parquet`.

    Names are relative to the folder that was given, or to the one that contains all photographs. Nothing is in `out`
    before all photographs are processed, but for `.partial`: after a run that was killed or interrupted, the next one
    with the same settings continues there, with the same result as an undisturbed run.

    Args:
        patterns: Files, folders, glob patterns or tar shards.
        out: A new or empty folder for crops and table (see `COLUMNS`).
        detection: How faces are found, selected and cropped.
        drawings: A new or empty folder for the photographs with boxes, points and scores drawn in.

    Raises:
        FileNotFoundError: A path or pattern matches nothing, or the detector's weights are missing.
        ValueError: A folder to write is not empty, or the name of a photograph is not UTF-8.
        OSError: A folder cannot be written.
    """
    folder = common_folder(patterns)
    files = {os.path.relpath(file.name, folder): file for file in find(patterns)}
    check_names(files)
    keys = keys_of(list(files))
    finder = FaceFinder(detection)
    summary = Summary(photos=len(files))
    settings = {"code": code_digest(), "draw": drawings is not None, **settings_of(detection)}
    with ExitStack() as stack:
        outputs = [out] if drawings is None else [out, drawings]
        folders = stack.enter_context(new_folders(outputs, last=TABLE, resume=True))
        stack.enter_context(opencv_in_one_thread())
        places = {file.name: file.path for file in files.values()}
        journal = stack.enter_context(open_journal(folders[0].parent / JOURNAL, folders, settings, places))

        def process(task: tuple[File, str]) -> Photo:
            return process_photo(*task, finder, folders, journal)

        tasks = zip(files.values(), keys, strict=True)
        photos = stack.enter_context(closing(map_ahead(process, tasks, PHOTOS_AHEAD)))
        bar = tqdm(photos, total=len(files), desc="faces", unit="photo", mininterval=1)
        write_table(record(bar, summary), detection, folders[0] / TABLE)
    return summary


def common_folder(patterns: Sequence[str]) -> str:
    """The folder that contains all places; of a single folder, the folder itself."""
    paths = [path for pattern in patterns for path in expand(pattern)]
    folders = [path if path.is_dir() else path.parent for path in paths]
    return os.path.commonpath([os.path.normpath(folder.absolute()) for folder in folders])


def process_photo(
    file: File, key: str, finder: FaceFinder, folders: Sequence[Path], journal: Journal
) -> Photo:
    """Finds the faces of one photograph and writes their crops, named by `key`, unless an earlier run has done so.

    Args:
        file: The photograph.
        key: The name of its crops, without number and suffix.
        finder: Finds and crops faces.
        folders: The folder of crops, and of drawings where they are wanted.
        journal: What is finished.
    """
    stamp = stamp_of(file.path)
    if (known := journal.find(file.name, key, stamp)) is not None:
        return Photo(file.name, known)
    try:
        content = file.read()
        photo_HW3 = decode(content)
    except (ImageError, OSError) as error:
        return Photo(file.name, unreadable=str(error))
    found = finder(photo_HW3)
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
    journal.add(entry)
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
