"""CelebA, aligned: `img_align_celeba/`, `list_attr_celeba.txt` and `list_eval_partition.txt`.

`identity_CelebA.txt` and `list_landmarks_align_celeba.txt` are read where they exist. All of them are in the root, or
below `Img/`, `Anno/` and `Eval/`.

Labels: the 40 attributes, 0 or 1. Landmarks: both eyes, nose and both corners of the mouth, as published.
162,770 training, 19,867 validation and 19,962 test images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, words_by_line
from fra.data.datasets.records import DatasetConfig, Record

FOLDERS = ("", "Anno", "Eval", "Img")
SPLIT = {"0": "train", "1": "val", "2": "test"}


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    images = required(root, "img_align_celeba").relative_to(root).as_posix()
    attributes = table(required(root, "list_attr_celeba.txt"), 40)
    splits = dict(pairs(required(root, "list_eval_partition.txt")))
    identities = find(root, "identity_CelebA.txt")
    people = dict(pairs(identities)) if identities else {}
    points = find(root, "list_landmarks_align_celeba.txt")
    landmarks = dict(table(points, 10)) if points else {}
    for name, values in attributes:
        if splits.get(name) not in SPLIT:
            raise ValueError(
                f"{find(root, 'list_eval_partition.txt')}: expected 0, 1 or 2 for {name}, found {splits.get(name)!r}"
            )
        yield Record(
            f"{images}/{name}",
            SPLIT[splits[name]],
            people.get(name),
            {attribute: int(value > 0) for attribute, value in values.items()},
            tuple(float(value) for value in landmarks[name].values()) if name in landmarks else None,
        )


def find(root: Path, name: str) -> Path | None:
    """The path of a file or folder of the set, or None."""
    return next((root / folder / name for folder in FOLDERS if (root / folder / name).exists()), None)


def required(root: Path, name: str) -> Path:
    """The path of a file or folder of the set.

    Raises:
        FileNotFoundError: It is missing.
    """
    path = find(root, name)
    if path is None:
        raise FileNotFoundError(
            f"{root / name}: no such file or folder (nor below {', '.join(FOLDERS[1:])}); check dataset.root"
        )
    return path


def pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Image name and number of each line such as `000001.jpg 0`."""
    for number, words in words_by_line(path):
        if len(words) != 2:
            raise malformed(path, number, "an image name and a number", " ".join(words))
        yield words[0], words[1]


def table(path: Path, columns: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Image name and values by column name, from a count line, a header of names, and a line per image."""
    header: list[str] = []
    for place, (number, words) in enumerate(words_by_line(path)):
        if place == 0:
            if len(words) != 1 or not words[0].isdigit():
                raise malformed(path, number, "the number of images", " ".join(words))
        elif place == 1:
            header = words
            if len(header) != columns:
                raise malformed(path, number, f"{columns} names", " ".join(words))
        else:
            try:
                yield words[0], dict(zip(header, map(int, words[1:]), strict=True))
            except ValueError:
                expected = f"an image name and {columns} numbers"
                raise malformed(path, number, expected, " ".join(words)) from None
