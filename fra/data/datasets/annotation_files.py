"""Reads files of a data set as published: lists of images, annotation files, numbers in them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import splitext
from typing import TextIO

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff"})
MAX_NUMBER = 2**31
"""Pixel coordinates, classes and angles are smaller."""


def require(path: Path, description: str) -> Path:
    """`path`, which must be an existing file or folder.

    Raises:
        FileNotFoundError: There is no such path; the message contains `description`.
        ValueError: It is a pipe or a device, whose reading might never end.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder ({description}); check dataset.root")
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: neither file nor folder ({description}); check dataset.root")
    return path


def image_files(root: Path) -> list[str]:
    """The images below `root`, by their suffix, as sorted relative paths with "/"; hidden files are left out.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    found, folders = [], [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}{entry.name}/")
                elif splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and Path(entry).is_file():
                    found.append(f"{folder}{entry.name}")
    if not found:
        raise FileNotFoundError(
            f"{root}: no image in it (looked for {' '.join(sorted(IMAGE_SUFFIXES))}, at any depth); check dataset.root"
        )
    return sorted(found)


def parse_number(word: str) -> float:
    """The number in a word of an annotation file.

    Raises:
        ValueError: It is not a number, not finite, or `MAX_NUMBER` or more.
    """
    value = float(word)
    if not -MAX_NUMBER < value < MAX_NUMBER:
        raise ValueError(f"{word[:80]}: not a number that an image can have")
    return value


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """An annotation file, open for `csv` or line by line.

    Raises:
        ValueError: The file is not UTF-8 text, or not a table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a table of comma-separated values ({error})") from None


def words_by_line(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and words of each line that is not blank; words are separated by white space."""
    with open_text(path) as stream:
        for place, line in enumerate(stream, start=1):
            if words := line.split():
                yield place, words


def malformed(path: Path, line: int, expected: str, found: object) -> ValueError:
    """The error for a line of an annotation file that is not as published."""
    return ValueError(f"{path}: line {line}: expected {expected}, found {str(found)[:80]!r}")
