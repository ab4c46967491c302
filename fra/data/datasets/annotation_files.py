"""Reads files of a data set as published: lists of images, annotation files, numbers in them."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import splitext
from typing import TextIO

from fra.data.datasets.records import DatasetConfig
from fra.wording import counted

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".pgm",
        ".ppm",
        ".pnm",
        ".pbm",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".avif",
        ".heic",
        ".heif",
    }
)
"""Suffixes of the formats that `fra.data.images` decodes, in lower case."""
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"})
"""Suffixes of the videos whose frames `fra.data.datasets.video` reads, in lower case."""
MISSING = frozenset({"", "nan", "none", "na", "n/a", "null", "<na>"})
"""Spellings of a missing value, in lower case: those that pandas, R and databases write."""
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".7z.001", ".rar")
"""Suffixes of archives in which data sets are distributed."""
MAX_NUMBER = 2**31
"""Pixel coordinates, classes and angles are smaller."""


def require(path: Path, description: str) -> Path:
    """`path`, which must be an existing file or folder.

    Raises:
        FileNotFoundError: There is no such path; the message contains `description`.
        ValueError: It is a pipe or a device, whose reading might never end.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file or folder ({description}); {packed(path) or 'check dataset.root'}"
        )
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: neither file nor folder ({description}); check dataset.root")
    return path


def packed(path: Path) -> str:
    """The remedy if a missing file or folder is there as an archive that was not unpacked; else an empty string."""
    for suffix in ARCHIVES:
        archive = path.with_name(path.name + suffix)
        if archive.is_file():
            return f"unpack {archive.name} there first"
    return ""


def unnested(folder: Path) -> Path:
    """The folder, or the one of the same name in it: an archive unpacked into its own name doubles it."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def image_files(root: Path, config: DatasetConfig | None = None) -> list[str]:
    """The images below `root`, by their suffix, as sorted relative paths with "/".

    Hidden files are left out; other files are left out, too, and a warning counts them by suffix.

    Args:
        root: The folder.
        config: The data set, whose `frames_per_second` decides whether videos are listed as well.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
    """
    suffixes = IMAGE_SUFFIXES | (VIDEO_SUFFIXES if config and config.frames_per_second else frozenset())
    found, skipped = list_files(root, suffixes)
    videos = skipped.keys() & VIDEO_SUFFIXES if config else ()
    remedy = "; dataset.frames_per_second takes frames from videos" if videos else ""
    if not found:
        others = f"; it holds {describe_skipped(skipped)}" if skipped else ""
        raise FileNotFoundError(
            f"{root}: no image in it{others} (looked for {' '.join(sorted(suffixes))}, at any depth); "
            f"check dataset.root{remedy}"
        )
    if skipped:
        logger.warning(
            "%s: %s skipped, not images by their suffix: %s%s",
            root,
            counted(skipped.total(), "file"),
            describe_skipped(skipped),
            remedy,
        )
    return found


def describe_skipped(skipped: Counter[str]) -> str:
    """Counts of files by suffix, in words, the most frequent first."""
    most = [f"{count:,} {suffix}" for suffix, count in skipped.most_common(8)]
    return ", ".join(most) + (f" and {len(skipped) - 8} further suffixes" if len(skipped) > 8 else "")


def list_files(root: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> tuple[list[str], Counter[str]]:
    """The files below `root` with one of the suffixes, as sorted relative paths with "/"; others by suffix, counted.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    found: list[str] = []
    skipped: Counter[str] = Counter()
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}{entry.name}/")
                elif (suffix := splitext(entry.name)[1].lower()) not in suffixes:
                    skipped[suffix or "without suffix"] += 1
                elif Path(entry).is_file():
                    found.append(f"{folder}{entry.name}")
                else:
                    skipped[f"{suffix} that are no plain files"] += 1
    return sorted(found), skipped


def is_missing(word: str | None) -> bool:
    """Whether a field of a table is empty or one of the spellings of a missing value."""
    return word is None or word.strip().lower() in MISSING


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
