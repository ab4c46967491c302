"""Records of faces, made from records of photographs (`dataset.faces=detect`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fra.data.datasets.record_table import without_duplicates
from fra.faces.config import FacesConfig
from fra.faces.crop import CropKind, apply, crop_transform
from fra.faces.detect import Points
from fra.faces.select import FoundFace, at, explain, from_numbers, select

LISTS = ("landmarks", "face.box", "face.points", "face.transform")
"""Columns of lists."""
TYPES = {
    "key": "string",
    "photo.sha256": "string",
    "photo.faces": "Int64",
    "photo.problem": "string",
    "face.score": "Float64",
    "face.sharpness": "Float64",
    "face.size": "Int64",
}
"""The other columns that `face_records` writes."""


def face_records(
    photos: pd.DataFrame, found: pd.DataFrame, kind: CropKind, config: FacesConfig
) -> pd.DataFrame:
    """One record per face instead of one per photograph, sorted by key.

    A face has the split, person, labels and measures of its photograph; landmarks move to pixels of the crop. A record
    with landmarks or a box becomes the one face found there. A photograph that cannot be decoded or has no face to crop
    stays as one record with a `photo.problem`.

    Args:
        photos: Records (see `fra.data.datasets.ingest.ingest`).
        found: What was found in each photograph (see `fra.data.datasets.photos.search_photos`).
        kind: How faces are cropped.
        config: Which faces are cropped.

    Returns:
        The records with the columns photo.sha256, photo.faces (number found), photo.problem, face.box (left, top,
        width, height) and face.points (x0, y0 … y4), both in pixels of the upright photograph, face.score,
        face.sharpness, face.transform (2×3 from pixels of the photograph to pixels of the crop, row by row) and
        face.size (side of the crop).
    """
    boxes = photos["box"] if "box" in photos else [None] * len(photos)
    searched = found[["sha256", "faces", "problem"]].itertuples(index=False, name=None)
    rows, values, names = [], [], []
    for row, (key, source, landmarks, box, (sha256, numbers, problem)) in enumerate(
        zip(photos["key"], photos["source"], photos["landmarks"], boxes, searched, strict=True)
    ):
        faces = from_numbers(numbers)
        points_L2 = in_photograph(landmarks, box)
        unreadable = None if pd.isna(problem) else str(problem)
        chosen = [] if unreadable else choose(faces, place_of(points_L2, box), config)
        known = {"photo.sha256": sha256, "photo.faces": len(faces)}
        for number, one in enumerate(chosen):
            suffix = f"_face{number}" if len(chosen) > 1 else ""
            values.append({"key": key + suffix, **known, **columns_of(one, points_L2, kind, config)})
        if not chosen:
            values.append({"key": key, **known, "photo.problem": unreadable or explain(faces, config)})
        rows += [row] * max(1, len(chosen))
        names += [source] * max(1, len(chosen))
    keys = without_duplicates([str(value["key"]) for value in values], names)
    written = {name: [value.get(name) for value in values] for name in (*TYPES, *LISTS)} | {"key": keys}
    table = photos.iloc[rows].drop(columns="box", errors="ignore").reset_index(drop=True)
    table = table.assign(
        **{name: pd.Series(written[name], dtype=kind_of) for name, kind_of in TYPES.items()},
        **{name: pd.Series(written[name], dtype=object) for name in LISTS},
    )
    return table.sort_values("key", ignore_index=True)


def in_photograph(landmarks: Sequence[float] | None, box: Sequence[int] | None) -> Points | None:
    """Landmarks (L, 2) in pixels of the photograph; those of a record with a box are counted from its corner."""
    if landmarks is None:
        return None
    corner = (0, 0) if box is None else box[:2]
    return np.asarray(landmarks, np.float64).reshape(-1, 2) + np.asarray(corner, np.float64)


def place_of(points_L2: Points | None, box: Sequence[int] | None) -> Points | None:
    """Where in the photograph (x, y) the annotated face is: the mean of its landmarks, or the centre of its box."""
    if points_L2 is not None:
        return np.asarray(points_L2.mean(axis=0))
    return None if box is None else np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def choose(faces: Sequence[FoundFace], place_2: Points | None, config: FacesConfig) -> list[FoundFace]:
    """The faces of one record that are cropped: those selected, or of them the one at the annotated place."""
    if place_2 is None:
        return select(faces, config)
    return at(select(faces, config.all_faces()), place_2)


def columns_of(
    one: FoundFace, points_L2: Points | None, kind: CropKind, config: FacesConfig
) -> dict[str, Any]:
    """The columns of a face that is cropped."""
    transform_23 = crop_transform(one.face, kind, config.size, config.margin)
    return {
        "landmarks": None if points_L2 is None else apply(transform_23, points_L2).ravel().tolist(),
        "face.box": list(one.face.box),
        "face.points": one.face.points_52.ravel().tolist(),
        "face.score": one.face.score,
        "face.sharpness": one.sharpness,
        "face.transform": transform_23.ravel().tolist(),
        "face.size": config.size,
    }
