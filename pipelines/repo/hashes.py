"""DVC's hashes, computed without DVC: the MD5 of a file; of a folder, the MD5 of the listing of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fra.files import sha256

CACHE = Path(".dvc/cache")
CHUNK = 1 << 20


def md5_of(content: bytes) -> str:
    """MD5 of bytes as hexadecimal digits."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def md5(path: Path) -> str:
    """MD5 of a file's bytes, as DVC names its objects."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def folder_digest(entries: Iterable[tuple[str, str]]) -> str:
    """DVC's hash of a folder, with its suffix ".dir", from (relative path, MD5) of its files."""
    listing = [{"md5": digest, "relpath": relative} for relative, digest in sorted(entries)]
    return f"{md5_of(json.dumps(listing, sort_keys=True).encode())}.dir"


def object_path(store: Path, digest: str) -> Path:
    """The path of an object in DVC's cache (`CACHE`) or in a folder that is a DVC remote."""
    return store / "files/md5" / digest[:2] / digest[2:]


def is_tracked(path: Path) -> bool:
    """Whether DVC counts a file as part of its folder, as .dvcignore says."""
    return "__pycache__" not in path.parts and path.suffix != ".pyc" and not path.match(".*.swp")


def files_of(folder: str, digest: str, root: Path = Path()) -> dict[str, str]:
    """The MD5 of each file of a folder, where the folder in the workspace has this hash of DVC; else empty.

    That hash is computed from the listing that is returned.
    """
    files = Hashes(root).below(folder) if (root / folder).is_dir() else {}
    return files if files and folder_digest(files.items()) == digest else {}


class Hashes:
    """Hashes of workspace paths. Each file is read once, several at a time (hashing releases the GIL)."""

    def __init__(self, root: Path, workers: int = 2) -> None:
        self.root = root
        self.workers = workers
        self.files: dict[str, str] = {}

    def read(self, paths: Iterable[str]) -> None:
        """Computes the hash of every file at or below `paths`."""
        wanted = {
            file.relative_to(self.root).as_posix()
            for path in paths
            for file in ((self.root / path).rglob("*") if (self.root / path).is_dir() else [self.root / path])
            if file.is_file() and is_tracked(file.relative_to(self.root))
        } - self.files.keys()
        order = sorted(wanted)
        with ThreadPoolExecutor(self.workers) as pool:
            digests = pool.map(lambda path: md5(self.root / path), order)
            self.files.update(zip(order, digests, strict=True))

    def below(self, folder: str) -> dict[str, str]:
        """The MD5 of each file of a folder, by its path relative to the folder."""
        self.read([folder])
        prefix = f"{folder}/"
        return {
            file.removeprefix(prefix): digest
            for file, digest in self.files.items()
            if file.startswith(prefix)
        }

    def of(self, path: str) -> str | None:
        """DVC's hash of a file or folder; None where it is missing."""
        self.read([path])
        if path in self.files:
            return self.files[path]
        return folder_digest(self.below(path).items()) if (self.root / path).is_dir() else None

    def sha256(self, path: str) -> str | None:
        """SHA-256 of a file, None where it is missing."""
        file = self.root / path
        return sha256(file) if file.is_file() else None
