"""CelebA, aligned: `img_align_celeba/`, `list_attr_celeba.txt` and `list_eval_partition.txt`.

`identity_CelebA.txt` and `list_landmarks_align_celeba.txt` are read where they exist. All of them are in the root, or
below `Img/`, `Anno/` and `Eval/`. Kaggle's copy is read, too: tables as `.csv`, images in
`img_align_celeba/img_align_celeba/`; and the images published as PNG, which the tables list as `.jpg`.

Labels: the 40 attributes, 0 or 1. Landmarks: both eyes, nose and both corners of the mouth, as published.
162,770 training, 19,867 validation and 19,962 test images.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, open_text, packed, unnested, words_by_line
from fra.data.datasets.records import DatasetConfig, Record

FOLDERS = ("", "Anno", "Eval", "Img")
IMAGES = ("img_align_celeba", "img_align_celeba_png")
MISSING = f"no such file or folder (nor below {', '.join(FOLDERS[1:])})"
SUFFIXES = (".txt", ".csv")
"""Suffixes of the tables: as published, and as on Kaggle."""
SPLIT = {"0": "train", "1": "val", "2": "test"}


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    images = image_folder(root)
    as_png = not any((root / images).glob("*.jpg")) and any((root / images).glob("*.png"))
    attributes = table(required(root, "list_attr_celeba", SUFFIXES), 40)
    partition = required(root, "list_eval_partition", SUFFIXES)
    splits = dict(pairs(partition))
    identities = find(root, "identity_CelebA", SUFFIXES)
    people = dict(pairs(identities)) if identities else {}
    points = find(root, "list_landmarks_align_celeba", SUFFIXES)
    landmarks = dict(table(points, 10)) if points else {}
    for name, values in attributes:
        if splits.get(name) not in SPLIT:
            raise ValueError(f"{partition}: expected 0, 1 or 2 for {name}, found {splits.get(name)!r}")
        yield Record(
            f"{images}/{Path(name).with_suffix('.png') if as_png else name}",
            SPLIT[splits[name]],
            people.get(name),
            {attribute: int(value > 0) for attribute, value in values.items()},
            tuple(float(value) for value in landmarks[name].values()) if name in landmarks else None,
        )


def image_folder(root: Path) -> str:
    """The folder with the images, relative to `root`.

    Raises:
        FileNotFoundError: It is missing.
    """
    for name in IMAGES:
        if folder := find(root, name):
            return unnested(folder).relative_to(root).as_posix()
    archives = (packed(root / folder / name) for folder in FOLDERS for name in IMAGES)
    remedy = next(filter(None, archives), "check dataset.root")
    raise FileNotFoundError(f"{root / IMAGES[0]}: {MISSING}; {remedy}")


def find(root: Path, name: str, suffixes: tuple[str, ...] = ("",)) -> Path | None:
    """The path of a file or folder of the set, or None."""
    paths = (root / folder / f"{name}{suffix}" for suffix in suffixes for folder in FOLDERS)
    return next((path for path in paths if path.exists()), None)


def required(root: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    """The path of a file of the set.

    Raises:
        FileNotFoundError: It is missing.
    """
    path = find(root, name, suffixes)
    if path is None:
        raise FileNotFoundError(f"{root / name}{suffixes[0]}: {MISSING}; check dataset.root")
    return path


def rows(path: Path, header: bool) -> Iterator[tuple[int, list[str]]]:
    """Line number and words of each line of a `.txt` or `.csv` table; without the header of a `.csv` unless wanted."""
    if path.suffix != ".csv":
        yield from words_by_line(path)
        return
    with open_text(path) as stream:
        for number, row in enumerate(csv.reader(stream), start=1):
            if row and (header or number > 1):
                yield number, [word.strip() for word in row]


def pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Image name and number of each line such as `000001.jpg 0`."""
    for number, words in rows(path, header=False):
        if len(words) != 2:
            raise malformed(path, number, "an image name and a number", " ".join(words))
        yield words[0], words[1]


def table(path: Path, columns: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Image name and values by column name of each image in a table.

    A `.txt` table begins with a count line and a header of names; a `.csv` table with a header that begins with
    `image_id`.
    """
    lines = rows(path, header=True)
    if path.suffix != ".csv":
        number, words = next(lines, (1, []))
        if len(words) != 1 or not words[0].isdigit():
            raise malformed(path, number, "the number of images", " ".join(words))
    number, words = next(lines, (1, []))
    header = words[1:] if path.suffix == ".csv" else words
    if len(header) != columns:
        raise malformed(path, number, f"{columns} names", " ".join(words))
    for number, words in lines:
        try:
            yield words[0], dict(zip(header, map(int, words[1:]), strict=True))
        except ValueError:
            expected = f"an image name and {columns} numbers"
            raise malformed(path, number, expected, " ".join(words)) from None
