"""Predictions of a task model for many pictures in one table, and drawn into the pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from fra.data.datasets.record_table import keys_of
from fra.data.images import decode, resize
from fra.dist import choose_device
from fra.faces.crop import crop
from fra.faces.detect import Pixels
from fra.files import atomic, check_output, new_folder, sha256
from fra.inference.detection import Detection, FaceFinder
from fra.inference.faces import common_folder, write_jpeg
from fra.inference.image_files import (
    Batch,
    Loaded,
    Skipped,
    Source,
    batched,
    columns,
    find,
    images_of,
    resolve,
)
from fra.inference.task import TaskPredictor, load_task
from fra.inference.task_drawing import draw_predictions
from fra.parallel import map_ahead, map_batches, opencv_in_one_thread


def predict(
    patterns: Sequence[str],
    model: Path,
    out: Path,
    *,
    batch_size: int = 64,
    device: str = "auto",
    detect: bool = False,
    drawings: Path | None = None,
) -> Skipped:
    """Write the predictions of a task model to `out`: one row per image, or per face that was found.

    Args:
        patterns: Files, folders, glob patterns or tar shards.
        model: The task model.
        out: A .parquet file: column `image`; with `detect` also `face`, `box` and `score`, see
            `fra.gallery.embed.embed`; then the outputs, see `fra.inference.task.TaskPredictor.predict`. The metadata
            `fra` names the model by its SHA-256.
        batch_size: Images per batch.
        device: "cpu", "cuda" or "auto".
        detect: Find the faces in each image, and crop them so that eyes and mouth are where they are in the images that
            the model was fitted on (the square around the box where that is not known). Otherwise each image is one
            face.
        drawings: A new or empty folder for the images with their predictions drawn in.

    Returns:
        The files that cannot be decoded, and those in which no face was found.

    Raises:
        ValueError: `out` has another suffix, `model` holds no task model, `drawings` is not empty, no image could be
            decoded, or no face was found.
        FileNotFoundError: A path or pattern matches nothing, or the model is missing.
        OSError: `out` or `drawings` cannot be written.
    """
    check_output(out, (".parquet",))
    paths = resolve(patterns)
    predictor = load_task(model).to(choose_device(device))
    detection = Detection() if detect else None
    origin = {"model": sha256(model), "task": predictor.metadata["task"], "crop": predictor.metadata["crop"]}
    if detection is not None:
        framed = predictor.model.framing is not None
        origin["faces"] = detection.description() | {"crop": "framing" if framed else "box"}
    skipped = Skipped()
    with ExitStack() as stack:
        folder = None if drawings is None else stack.enter_context(new_folder(drawings))
        sources, table = _predict(predictor, paths, batch_size, detection, skipped)
        write(sources, table, origin, out)
        if folder is not None:
            draw(patterns, sources, table, predictor.metadata["task"], folder)
    return skipped


def _predict(
    predictor: TaskPredictor,
    paths: Sequence[str],
    batch_size: int,
    detection: Detection | None,
    skipped: Skipped,
) -> tuple[list[Source], pd.DataFrame]:
    """The images, or the faces in them, and a row of predictions for each; other files are added to `skipped`."""
    load = (
        partial(_load, predictor)
        if detection is None
        else partial(_load_faces, predictor, FaceFinder(detection))
    )
    sources: list[Source] = []
    tables: list[pd.DataFrame] = []
    with (
        nullcontext() if detection is None else opencv_in_one_thread(),
        tqdm(desc="predict", unit="image" if detection is None else "face", mininterval=1) as bar,
    ):
        found = batched(images_of(paths, load, 3 * batch_size, skipped), batch_size)
        for batch_sources, part in map_batches(partial(_table, predictor), found, predictor.model.device):
            sources += batch_sources
            tables.append(part)
            bar.update(len(batch_sources))
    if not tables:
        raise skipped.nothing_left()
    return sources, pd.concat(tables, ignore_index=True)


def _table(predictor: TaskPredictor, batch: Batch) -> tuple[list[Source], pd.DataFrame]:
    transforms = [source.transform_23 for source in batch.sources if source.transform_23 is not None]
    return batch.sources, predictor.table(batch.pixels_N3HW.permute(0, 2, 3, 1).numpy(), transforms)


def _load(predictor: TaskPredictor, name: str, image_HW3: Pixels) -> Loaded:
    pixels, transform_23 = predictor.prepare(image_HW3)
    return Loaded(name, [(Source(name, transform_23=transform_23), pixels)])


def _load_faces(predictor: TaskPredictor, finder: FaceFinder, name: str, photo_HW3: Pixels) -> Loaded:
    """The faces in a photograph, cropped as the model needs them; transforms lead to pixels of the model's size."""
    size, found = predictor.model.image_size, finder(photo_HW3)
    faces = []
    for number, one in enumerate(found.crops):
        if (framing := predictor.model.framing) is not None:
            transform_23 = framing.transform(one.face.points_52, size)
            pixels = crop(photo_HW3, transform_23, size)
        else:
            transform_23 = one.transform_23 * (size / len(one.pixels_HW3))
            pixels = resize(one.pixels_HW3, size)
        faces.append((Source(name, number, one.face, transform_23), pixels))
    return Loaded(name, faces, no_face=found.reason)


def write(sources: Sequence[Source], table: pd.DataFrame, origin: dict[str, Any], out: Path) -> None:
    """Write predictions atomically; `origin` says which model they come from."""
    types = {"box": pa.list_(pa.float64(), 4)}
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns(sources).items()}
    arrays |= {str(name): pa.array(values) for name, values in table.items()}
    with atomic(out) as partial_file:
        pq.write_table(pa.table(arrays).replace_schema_metadata({"fra": json.dumps(origin)}), partial_file)


def draw(
    patterns: Sequence[str], sources: Sequence[Source], table: pd.DataFrame, task: str, folder: Path
) -> None:
    """Write each image that has predictions, with these drawn in, as JPEG into a folder.

    The images are decoded again, so that they need not all be kept in memory.
    """
    rows_of: dict[str, list[int]] = {}
    for row, source in enumerate(sources):
        rows_of.setdefault(source.name, []).append(row)
    common = common_folder(patterns)
    files = [file for file in find(patterns) if file.name in rows_of]
    keys = keys_of([os.path.relpath(file.name, common) for file in files])

    def process(number: int) -> None:
        file, rows = files[number], rows_of[files[number].name]
        faces = [sources[row].face for row in rows]
        picture = draw_predictions(decode(file.read()), task, table.iloc[rows], faces)
        write_jpeg(picture, folder / f"{keys[number]}.jpg")

    for _ in map_ahead(process, range(len(files)), 32):
        pass
