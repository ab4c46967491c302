"""DVC's run cache: for each run of a stage on this machine, its command, parameters, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from pipelines.repo.hashes import CACHE
from pipelines.repo.lock import Loader, Stage, stage_of

FOLDER = CACHE / "runs"


def related(stages: Mapping[str, Stage], root: Path = Path()) -> dict[str, list[Stage]]:
    """The recorded runs that have the inputs or the outputs of each stage, by the stage's name."""
    texts = entries(root)
    found: dict[str, list[Stage]] = {}
    for stage in stages.values():
        paths = [path.encode() for path in stage.outs]
        runs = [parsed(stage.name, text) for text in texts if all(path in text for path in paths)]
        found[stage.name] = [run for run in runs if run is not None and is_related(stage, run)]
    return found


def parsed(name: str, text: bytes) -> Stage | None:
    """A run from its entry; None where the entry is damaged, which is no evidence."""
    try:
        return stage_of(name, yaml.load(text, Loader))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None


def entries(root: Path) -> tuple[bytes, ...]:
    """The content of every entry."""
    return tuple(file.read_bytes() for file in sorted((root / FOLDER).glob("*/*/*")) if file.is_file())


def is_related(stage: Stage, run: Stage) -> bool:
    """Whether a run has the same outputs (by path), and either all their hashes or all inputs of a stage."""
    if run.outs.keys() != stage.outs.keys():
        return False
    inputs = (run.command, dict(run.params), dict(run.deps))
    return run.outs == stage.outs or inputs == (stage.command, dict(stage.params), dict(stage.deps))


def same(stage: Stage, run: Stage) -> bool:
    """Whether a run is exactly this one."""
    return not differences(stage, run)


def differences(stage: Stage, run: Stage) -> list[str]:
    """What differs between two runs of a stage: the command, dotted parameters, and paths."""
    found = ["command"] * (stage.command != run.command)
    for ours, theirs in (
        (flatten(stage.params), flatten(run.params)),
        (stage.deps, run.deps),
        (stage.outs, run.outs),
    ):
        found += sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    return found


def flatten(values: object, prefix: str = "") -> dict[str, object]:
    """Return nested mappings as a single one, keys joined by dots."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found
