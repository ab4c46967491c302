"""Copies of outputs that survive between runs: DVC deletes the outputs of a stage before it runs the stage again.

What a stage needs from its last run is kept in a folder of state below `.work`, which shares its files with the output.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from fra.files import atomic

NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
"""`OSError.errno` where a file system cannot make a hard link, so that the file is copied."""
LAST = "index.json"
"""The file that marks a folder of shards as complete, written last."""


def mirror(source: Path, target: Path) -> None:
    """Makes the folder `target` equal to `source`, with hard links where possible; files and folders in excess go.

    Raises:
        OSError: there is no room, or no permission; it names the file.
    """
    files = {file.relative_to(source) for file in source.rglob("*") if file.is_file()}
    (target / LAST).unlink(missing_ok=True)
    for file in [file for file in target.rglob("*") if not file.is_dir()]:
        if file.relative_to(target) not in files:
            file.unlink()
    for relative in sorted(files, key=lambda path: (path.name == LAST, path)):
        link(source / relative, target / relative)
    remove_empty_folders(target)
    target.mkdir(parents=True, exist_ok=True)


def link(source: Path, target: Path) -> None:
    """Makes `target` a hard link to the file `source`, or a copy where that is impossible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise OSError(error.errno, error.strerror, str(target)) from None
        with atomic(target) as partial:
            shutil.copyfile(source, partial)


def remove_empty_folders(top: Path) -> None:
    """Removes every folder below `top` that has no file: its name may be that of a person who was withdrawn."""
    for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
