"""A fingerprint of a folder that DVC does not watch (`dataset.root`), to see whether its files changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fra.files import write_text
from pipelines.project import paths

STORED = paths.WORK / "seen"


def of_folder(root: Path) -> str:
    """Returns a SHA-256 over name, size and modification time of every file below `root`; no file is read.

    Files and folders whose name begins with a dot are left out.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            status = Path(folder, name).stat()
            digest.update(f"{folder}/{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_stored(name: str, fingerprint: str) -> bool:
    """Returns whether `fingerprint` is the one that was stored last as `name`."""
    stored = STORED / name
    return stored.is_file() and stored.read_text(encoding="utf-8") == fingerprint


def store(name: str, fingerprint: str) -> None:
    """Stores a fingerprint as `name`, for `is_stored`."""
    write_text(fingerprint, STORED / name)
