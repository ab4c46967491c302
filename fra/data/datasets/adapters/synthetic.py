"""A labelled test bed of 7,319 synthetic faces: 68 landmarks, direction of the head, open mouth, facial actions.

The faces are those of the adapter `generated` with seed 9000, blocks 0 to 31; pre-training uses other seeds. The images
are drawn when they are needed; only the annotations are stored, which MediaPipe Face Mesh made (pseudo-labels, see
`data/synthetic/README.md`). Images may differ by rounding between machines, so that thumbnails of some of them are
compared with those of the images that were annotated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data import images
from fra.data.datasets.adapters import generated, webdataset
from fra.data.datasets.facial_actions import facial_actions, without_pose
from fra.data.datasets.records import DatasetConfig, Record
from fra.files import read_csv, read_parquet

ANNOTATIONS = Path("data/synthetic")
"""The folder of the repository with `annotations.parquet` and `thumbnails.csv`."""

BLOCKS = DatasetConfig("synthetic", "generated", images=32 * generated.BLOCK, seed=9000)
"""The images that were annotated, and those that were left out because no face was found twice at one place."""

FACES = 7319
TRAIN, VAL = 4000, 1000
"""The first annotated faces are for training, the next ones for validation, the rest (2,319) for test."""

THUMBNAIL = 4
"""Width and height of a thumbnail in pixels."""
TOLERANCE = 3
"""Largest difference of a thumbnail's grey values (0 to 255) that rounding explains; another image differs by tens."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the annotated faces; keys are `9000-<block>/<number>`, as those of `generated`."""
    rows = read_annotations()
    for path in generated.block_paths(root, BLOCKS):
        for record in webdataset.members(str(path), config):
            row = rows.get((record.name or "").rpartition(".")[0])
            if row is not None:
                yield replace(row, source=record.source, name=record.name, span=record.span)


def read_annotations() -> dict[str, Record]:
    """The annotations of each face by its key, as records without an image; in the order of the table.

    Raises:
        ValueError: The table is not the one of the repository.
    """
    path = ANNOTATIONS / "annotations.parquet"
    table = read_parquet(path)
    if len(table) != FACES:
        raise ValueError(
            f"{path}: {len(table):,} rows instead of {FACES:,}: restore it (git checkout {path})"
        )
    coordinates = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    points_NC = table[coordinates].to_numpy(float)
    pose = table[["yaw", "pitch"]].astype(float).round(1)
    actions = facial_actions(points_NC.reshape(-1, 68, 2))
    yaw_N, pitch_N = pose.to_numpy().T
    measures = pose.join(without_pose(actions, yaw_N, pitch_N, slice(TRAIN)))
    measured = [dict(zip(measures.columns, row, strict=True)) for row in measures.to_numpy().tolist()]
    splits = ["train"] * TRAIN + ["val"] * VAL + ["test"] * (FACES - TRAIN - VAL)
    keys = [
        f"{BLOCKS.seed}-{block:06d}/{number:06d}" for block, number in table[["block", "number"]].to_numpy()
    ]
    open_mouth = table["Mouth_Slightly_Open"]
    return {
        key: Record(
            key,
            split,
            labels={} if pd.isna(label) else {"Mouth_Slightly_Open": int(label)},
            landmarks=tuple(points_C),
            measures=values,
        )
        for key, split, label, points_C, values in zip(
            keys, splits, open_mouth, points_NC.tolist(), measured, strict=True
        )
    }


def fetch(raw: Path, config: DatasetConfig) -> None:
    """Draws the blocks that are missing in `raw`, and checks that they show the faces that were annotated.

    Raises:
        FileNotFoundError: The package with the generator's weights is not installed.
        ValueError: Its weights are not the expected ones, or it draws other faces here.
    """
    generated.fetch(raw, BLOCKS)
    check(raw)


def check(raw: Path) -> None:
    """Compares the first images of each block with the thumbnails of the annotated ones, up to rounding.

    Raises:
        ValueError: They differ.
    """
    path = ANNOTATIONS / "thumbnails.csv"
    wanted = read_csv(path, {"block": "int64", "number": "int64"}, others="int64").set_index(
        ["block", "number"]
    )
    for block, rows in wanted.groupby("block"):
        tar = generated.block_paths(raw, BLOCKS)[int(str(block))]
        found_NT = np.stack([thumbnail(image) for image in read_block(tar, len(rows))])
        difference = float(np.abs(found_NT - rows.to_numpy()).max())
        if difference > TOLERANCE:
            raise ValueError(
                f"{tar}: not the faces that were annotated: thumbnails differ by {difference:.0f} of 255 from {path}, "
                f"and rounding explains {TOLERANCE}. Delete {raw} and draw them again; if they still differ, this "
                "machine's PyTorch draws other faces, and the labels do not hold for them"
            )


def read_block(tar: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """The first images of a block: (H, W, 3) each, RGB."""
    names = {f"{number:06d}" for number in range(count)}
    for _, content in images.members(tar, names):
        yield images.decode(content)


def thumbnail(image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean grey values of a grid of cells, row by row: (THUMBNAIL²,)."""
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey_HW, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).ravel()
