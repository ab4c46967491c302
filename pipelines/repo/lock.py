"""dvc.lock as a graph, and DVC's hashes computed anew: MD5 of a file; of a folder, MD5 of its files' listing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CHUNK = 1 << 20


class LineageError(ValueError):
    """What was asked for is not in the lineage; the message says what is."""


@dataclass(frozen=True)
class Stage:
    """One stage of a dvc.lock: its command, parameters, and the paths it read and wrote with their hashes."""

    name: str
    command: str
    params: Mapping[str, Any]
    deps: Mapping[str, str]
    outs: Mapping[str, str]

    @property
    def code(self) -> dict[str, str]:
        return {path: digest for path, digest in self.deps.items() if path.startswith("fra/")}

    @property
    def data(self) -> dict[str, str]:
        return {path: digest for path, digest in self.deps.items() if not path.startswith("fra/")}


def parse(text: str | bytes) -> dict[str, Stage]:
    """The stages of a dvc.lock, by name. Raises `LineageError` where the text is no lock file."""
    try:
        entries = yaml.load(text, Loader)["stages"]
        return {
            name: Stage(
                name,
                " && ".join(entry["cmd"]) if isinstance(entry["cmd"], list) else entry["cmd"],
                entry.get("params", {}).get("params.yaml", {}),
                {dep["path"]: str(dep["md5"]) for dep in entry.get("deps", [])},
                {out["path"]: str(out["md5"]) for out in entry.get("outs", [])},
            )
            for name, entry in entries.items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LineageError(f"dvc.lock: not a lock file of DVC ({' '.join(str(error).split())})") from None


def read(root: Path = Path()) -> dict[str, Stage]:
    """The stages of the workspace's dvc.lock. Raises `LineageError` where nothing ran yet."""
    lock = root / "dvc.lock"
    if not lock.is_file():
        raise LineageError(f"{lock}: not there, so nothing was made yet: run `dvc repro`")
    return parse(lock.read_bytes())


def contains(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies below it."""
    return path == folder or path.startswith(f"{folder}/")


def maker(stages: Mapping[str, Stage], path: str) -> tuple[Stage, str] | None:
    """The stage that wrote `path` (or a folder that it is in), and the output's path."""
    for stage in stages.values():
        for out in stage.outs:
            if contains(out, path):
                return stage, out
    return None


def above(stages: Mapping[str, Stage], stage: Stage) -> list[Stage]:
    """The stages that wrote what `stage` read, in the lock's order."""
    found = {}
    for path in stage.data:
        for other in stages.values():
            if any(contains(out, path) or contains(path, out) for out in other.outs):
                found[other.name] = other
    return list(found.values())


def below(stages: Mapping[str, Stage], paths: Iterable[str]) -> list[Stage]:
    """The stages that read any of `paths`, or what those stages wrote, and so on; in the lock's order."""
    touched = set(paths)
    found: dict[str, Stage] = {}
    grown = True
    while grown:
        grown = False
        for stage in stages.values():
            reads = any(contains(path, dep) or contains(dep, path) for path in touched for dep in stage.data)
            if reads and stage.name not in found:
                found[stage.name] = stage
                touched |= set(stage.outs)
                grown = True
    return [stage for stage in stages.values() if stage.name in found]


def md5(path: Path) -> str:
    """MD5 of a file's bytes, as DVC names its objects."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def listing_digest(entries: Iterable[tuple[str, str]]) -> str:
    """DVC's hash of a folder from its files' (relative path, MD5)."""
    listing = [{"md5": digest, "relpath": relative} for relative, digest in sorted(entries)]
    return (
        f"{hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest()}.dir"
    )


class Hashes:
    """Hashes of workspace paths, each file read once, several at a time (hashing frees the interpreter)."""

    def __init__(self, root: Path, workers: int = 2) -> None:
        self.root = root
        self.workers = workers
        self.files: dict[str, str] = {}

    def read(self, paths: Iterable[str]) -> None:
        """Hashes every file at or below `paths`."""
        wanted = {
            file.relative_to(self.root).as_posix()
            for path in paths
            for file in ((self.root / path).rglob("*") if (self.root / path).is_dir() else [self.root / path])
            if file.is_file() and "__pycache__" not in file.parts  # as .dvcignore says
        } - self.files.keys()
        order = sorted(wanted)
        with ThreadPoolExecutor(self.workers) as pool:
            digests = pool.map(lambda path: md5(self.root / path), order)
            self.files.update(zip(order, digests, strict=True))

    def of(self, path: str) -> str | None:
        """DVC's hash of a file or folder, None where it is gone."""
        self.read([path])
        if path in self.files:
            return self.files[path]
        if not (self.root / path).is_dir():
            return None
        prefix = f"{path}/"
        return listing_digest(
            (file.removeprefix(prefix), digest)
            for file, digest in self.files.items()
            if file.startswith(prefix)
        )
