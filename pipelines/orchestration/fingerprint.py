"""Whether a folder that DVC does not watch (`dataset.root`) holds other files than before; no file is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fra.files import write_text
from pipelines.project import paths

SEEN = paths.WORK / "seen"


def signature(root: Path) -> str:
    """SHA-256 over name, size and time of change of every file below `root`, hidden ones left out.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    listing = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            about = Path(folder, name).stat()
            listing.update(f"{folder}/{name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return listing.hexdigest()


def is_known(name: str, now: str) -> bool:
    """Whether the listing noted last as `name` is the present one."""
    seen = SEEN / name
    return seen.is_file() and seen.read_text(encoding="utf-8") == now


def note(name: str, now: str) -> None:
    """Notes a listing as `name`, for `is_known`."""
    write_text(now, SEEN / name)
