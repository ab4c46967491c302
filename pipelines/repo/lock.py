"""dvc.lock, parsed in one place: which files each stage read and wrote, by hash, and with which parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.repo.hashes import CACHE, object_path

LOCK = Path("dvc.lock")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class LineageError(ValueError):
    """The lineage does not contain what was requested; the message says what it contains."""


@dataclass(frozen=True)
class Stage:
    """One stage of a dvc.lock: its command, its parameters, and the paths it read and wrote with their hashes.

    `sizes` has the bytes of each output where dvc.lock has them.
    """

    name: str
    command: str
    params: Mapping[str, Any]
    deps: Mapping[str, str]
    outs: Mapping[str, str]
    sizes: Mapping[str, int]

    @property
    def code(self) -> dict[str, str]:
        """The dependencies that are code: files and folders of `fra/`."""
        return {path: digest for path, digest in self.deps.items() if path.startswith("fra/")}

    @property
    def data(self) -> dict[str, str]:
        """The dependencies that are not code."""
        return {path: digest for path, digest in self.deps.items() if not path.startswith("fra/")}


def parse(text: str | bytes) -> dict[str, Stage]:
    """Returns the stages of a dvc.lock by name. Raises `LineageError` where the text is not a lock file."""
    try:
        return {name: stage_of(name, entry) for name, entry in yaml.load(text, Loader)["stages"].items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if b"\n<<<<<<< " in (text.encode() if isinstance(text, str) else text):
            raise LineageError(
                "dvc.lock: has the marks of a merge conflict: take one side (`git checkout --ours dvc.lock`), then run "
                "`dvc repro`"
            ) from None
        raise LineageError(f"dvc.lock: not a lock file of DVC ({' '.join(str(error).split())})") from None


def stage_of(name: str, entry: Mapping[str, Any]) -> Stage:
    """A stage from its entry in dvc.lock, or in DVC's run cache, which has the same form."""
    command = entry["cmd"]
    outs = entry.get("outs", [])
    return Stage(
        name,
        " && ".join(command) if isinstance(command, list) else command,
        entry.get("params", {}).get("params.yaml", {}),
        {dep["path"]: str(dep["md5"]) for dep in entry.get("deps", [])},
        {out["path"]: str(out["md5"]) for out in outs},
        {out["path"]: int(out["size"]) for out in outs if "size" in out},
    )


def read(root: Path = Path()) -> dict[str, Stage]:
    """Returns the stages of the workspace's dvc.lock. Raises `LineageError` where no stage has run yet."""
    lock = root / LOCK
    if not lock.is_file():
        raise LineageError(f"{lock}: missing, so no stage has run yet: run `dvc repro`")
    return parse(lock.read_bytes())


def cached_files(path: str, root: Path = Path()) -> dict[str, Path]:
    """The objects in DVC's cache of an output as dvc.lock has it, by path in the output ("" for a file).

    Empty where the output is not in dvc.lock, or an object is missing.
    """
    try:
        made = maker(read(root), path)
    except LineageError:
        return {}
    if made is None or path not in made[0].outs:
        return {}
    digest = made[0].outs[path]
    stored = object_path(root / CACHE, digest)
    if not stored.is_file():
        return {}
    if not digest.endswith(".dir"):
        return {"": stored}
    entries = json.loads(stored.read_bytes())
    files = {entry["relpath"]: object_path(root / CACHE, entry["md5"]) for entry in entries}
    return files if all(file.is_file() for file in files.values()) else {}


def contains(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or is below it."""
    return path == folder or path.startswith(f"{folder}/")


def maker(stages: Mapping[str, Stage], path: str) -> tuple[Stage, str] | None:
    """The stage that wrote `path` or a folder that contains it, and that output's path; None where there is none."""
    for stage in stages.values():
        for out in stage.outs:
            if contains(out, path):
                return stage, out
    return None


def above(stages: Mapping[str, Stage], stage: Stage) -> list[Stage]:
    """The stages that wrote what `stage` read, in the order of dvc.lock."""
    found = {}
    for path in stage.data:
        for other in stages.values():
            if any(contains(out, path) or contains(path, out) for out in other.outs):
                found[other.name] = other
    return list(found.values())


def below(stages: Mapping[str, Stage], paths: Iterable[str]) -> list[Stage]:
    """The stages that read any of `paths`, or what those stages wrote, and so on, in the order of dvc.lock."""
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


def ancestry(stages: Mapping[str, Stage], artifact: str) -> dict[str, Stage]:
    """The stages that made `artifact`, directly or not, in the order of dvc.lock.

    Raises:
        LineageError: no stage made it.
    """
    made = maker(stages, artifact)
    if made is None:
        raise LineageError(f"{artifact}: made by no stage of dvc.lock; artifacts are: {artifacts(stages)}")
    waiting, found = [made[0]], set()
    while waiting:
        stage = waiting.pop()
        if stage.name not in found:
            found.add(stage.name)
            waiting += above(stages, stage)
    return {name: stage for name, stage in stages.items() if name in found}


def artifacts(stages: Mapping[str, Stage]) -> str:
    """All outputs, as text for an error message."""
    return ", ".join(sorted(out for stage in stages.values() for out in stage.outs))
