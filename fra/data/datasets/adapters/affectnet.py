"""AffectNet, manually annotated, in each form in which it is distributed.

- As published: `Manually_Annotated_file_lists/{training,validation}.csv` and `Manually_Annotated_Images/`.
- As distributed today: `{train,val}_set/images/0.jpg` with `annotations/0_exp.npy` and `0_lnd.npy`.
- Sorted by label: `{train,val}/<label>/`.

Label `expression`: 0 Neutral, 1 Happy, 2 Sad, 3 Surprise, 4 Fear, 5 Disgust, 6 Anger, 7 Contempt; images marked as
none, uncertain or no face (8 to 10) are left out. The published validation images are the test split, as in the
literature: the true test set was never released. Landmarks: 68, in pixels of the published file.
287,568 training and 4,000 test images of 8 expressions.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fra.data.datasets.annotation_files import image_files, malformed, open_text, parse_number, require
from fra.data.datasets.records import DatasetConfig, Record, split_off

LISTS, IMAGES = "Manually_Annotated_file_lists", "Manually_Annotated_Images"
COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
EXPRESSIONS = 8


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    if (root / LISTS).is_dir():
        for name, split in (("training", "train"), ("validation", "test")):
            yield from annotated(root, name, split, config)
    elif (root / "train_set").is_dir():
        for folder, split in (("train_set", "train"), ("val_set", "test")):
            yield from with_arrays(root, folder, split, config)
    elif (root / "train").is_dir() and (root / "val").is_dir():
        for folder, split in (("train", "train"), ("val", "test")):
            yield from sorted_by_label(root, folder, split, config)
    else:
        raise FileNotFoundError(
            f"{root}: neither {LISTS}/ nor train_set/ (as published) nor train/ and val/ (sorted) is in it; "
            "check dataset.root"
        )


def annotated(root: Path, name: str, split: str, config: DatasetConfig) -> Iterator[Record]:
    """The images of one CSV list; the published validation list has no header."""
    listed = require(root / LISTS / f"{name}.csv", "AffectNet's list of images")
    require(root / IMAGES, "AffectNet's images")
    columns = list(COLUMNS)
    with open_text(listed) as stream:
        for line, row in enumerate(csv.reader(stream), start=1):
            if not row:
                continue
            if line == 1 and row[0].strip() == COLUMNS[0]:
                columns = [column.strip() for column in row]
                continue
            values = dict(zip(columns, row, strict=False))
            try:
                label = int(values["expression"])
                points = tuple(
                    parse_number(value) for value in values["facial_landmarks"].split(";") if value
                )
                source = f"{IMAGES}/{values[COLUMNS[0]]}"
            except (KeyError, ValueError):
                raise malformed(listed, line, f"the columns {', '.join(columns)}", ",".join(row)) from None
            if 0 <= label < EXPRESSIONS:
                landmarks = points if len(points) == 2 * 68 else None
                yield Record(source, split_off(split, source, config), None, {"expression": label}, landmarks)


def with_arrays(root: Path, folder: str, split: str, config: DatasetConfig) -> Iterator[Record]:
    """The images of `train_set/` or `val_set/`, each annotated by one NumPy array per property."""
    annotations = require(root / folder / "annotations", "AffectNet's annotations")
    images = {Path(name).stem: name for name in image_files(root / folder / "images")}
    expressions = sorted(annotations.glob("*_exp.npy"))
    if not expressions:
        raise FileNotFoundError(f"{annotations}: no *_exp.npy in it; check dataset.root")
    for path in expressions:
        name = path.name.removesuffix("_exp.npy")
        label = read_array(path, 1)[0]
        if label != int(label):
            raise ValueError(f"{path}: expected the number of an expression, found {label}")
        if not 0 <= label < EXPRESSIONS:
            continue
        landmarks = annotations / f"{name}_lnd.npy"
        points = read_array(landmarks, 2 * 68) if landmarks.exists() else None
        source = f"{folder}/images/{images.get(name, f'{name}.jpg')}"
        yield Record(source, split_off(split, source, config), None, {"expression": int(label)}, points)


def read_array(path: Path, size: int) -> tuple[float, ...]:
    """The `size` numbers in a NumPy file, which may be stored as text.

    Raises:
        ValueError: It is not a NumPy file, or holds something else.
    """
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.size != size:
            raise ValueError(f"expected {size} numbers")
        return tuple(parse_number(str(value)) for value in array.astype(str).ravel().tolist())
    except Exception as error:  # NumPy raises anything on damaged bytes
        raise ValueError(f"{path}: not an array of {size} numbers ({str(error)[:80]})") from None


def sorted_by_label(root: Path, folder: str, split: str, config: DatasetConfig) -> Iterator[Record]:
    """The images of one folder whose sub-folders are named by the label."""
    for file in image_files(root / folder):
        label, name = file.partition("/")[0], f"{folder}/{file}"
        if not label.isdecimal():
            raise ValueError(f"{root / name}: expected {folder}/<label>/ with a number, found {label!r}")
        if int(label) < EXPRESSIONS:
            yield Record(name, split_off(split, name, config), labels={"expression": int(label)})
