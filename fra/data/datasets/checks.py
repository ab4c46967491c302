"""Checks the files that a data set lists before any is read: names, links, existence."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from posixpath import dirname, isabs, join

from fra.data.datasets.records import Record
from fra.wording import counted

logger = logging.getLogger(__name__)

BACKSLASH = "\\"


def check_names(records: list[Record], where: str | Path) -> None:
    """Checks the names in records, which come from annotation files and archives of unknown origin.

    Args:
        records: The records of a set.
        where: The set, for the message.

    Raises:
        ValueError: A name leads out of the set, is not UTF-8, or holds a control character.
    """
    for record in records:
        check_name(record.name or record.source, where)
        if not record.span:  # otherwise it is the path or URL of a tar, which the user chose
            check_name(record.source, where)


def check_name(name: str, where: str | Path) -> None:
    """Raises `ValueError` where one name is not allowed; see `check_names`."""
    if isabs(name) or ".." in name.split("/"):
        raise ValueError(f"{where}: {name!r} leads out of the set")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: {name!r} is not UTF-8: rename it") from None
    if re.search(r"[\x00-\x1f\x7f-\x9f]", name):
        raise ValueError(f"{where}: {name!r} has a control character in it: rename it")


def without_repeats(records: list[Record], where: str | Path) -> list[Record]:
    """The records without those that repeat an earlier one in every field; a warning counts these.

    Published lists name some images twice, which would then count twice in every result.
    """
    count = Counter(record.source for record in records)
    seen: set[tuple[object, ...]] = set()
    kept, repeated = [], []
    for record in records:
        if count[record.source] > 1:
            fields = tuple(
                tuple(value.items()) if isinstance(value, Mapping) else value
                for value in vars(record).values()
            )
            if fields in seen:
                repeated.append(record.name or record.source)
                continue
            seen.add(fields)
        kept.append(record)
    if repeated:
        logger.warning(
            "%s: %s listed twice with the same annotation, taken once (%s)",
            where,
            counted(len(repeated), "image"),
            ", ".join(repeated[:3]),
        )
    return kept


def stat_all(root: Path, sources: list[str]) -> list[tuple[int, int]]:
    """Size in bytes and modification time in nanoseconds of each file.

    Raises:
        FileNotFoundError: Files are missing; the message names the first and counts them.
        ValueError: One is a pipe, a device or a folder.
    """
    found, missing = [], []
    for source in sources:
        path = join(root, source)
        try:
            status = os.stat(path)  # noqa: PTH116  a Path object per image costs four times as much
        except (FileNotFoundError, NotADirectoryError):
            missing.append(source)
            continue
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(
                f"{path}: not a plain file, but a pipe, a device or a folder; take it out of the set"
            )
        found.append((status.st_size, status.st_mtime_ns))
    if missing:
        remedy = "write paths with / there" if BACKSLASH in missing[0] else "check dataset.root"
        raise FileNotFoundError(
            f"{root / missing[0]}: no such file, though the set lists it ({len(missing):,} of {len(sources):,} "
            f"files are missing); {remedy}"
        )
    return found


def check_links(root: Path, sources: list[str]) -> None:
    """Checks that no file and no folder of the set is a link that leads out of it.

    Raises:
        ValueError: One does.
    """
    home = os.path.realpath(root)
    folders = {dirname(source) for source in sources}
    links = [source for source in sources if os.path.islink(join(root, source))]  # noqa: PTH114  as above
    for name in (*sorted(folders), *links):
        target = os.path.realpath(join(root, name))
        if os.path.commonpath([home, target]) != home:
            raise ValueError(
                f"{join(root, name)}: a link that leads out of dataset.root, to {target}; "
                "dataset.follow_links=true reads it all the same"
            )
