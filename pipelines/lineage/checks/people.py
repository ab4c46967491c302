"""Withdrawals and approvals compared with the artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.lineage import approval
from pipelines.lineage.problem import Problem
from pipelines.project import paths
from pipelines.project.dataset import read_withdrawal, withdrawal_files
from pipelines.repo.hashes import Hashes
from pipelines.repo.lock import Stage, above


def withdrawals(stages: dict[str, Stage], root: Path, hashes: Hashes) -> Iterator[Problem]:
    """Artifacts that were made from images of a person who was withdrawn, and malformed records of withdrawals."""
    for file in withdrawal_files(root):
        path = file.relative_to(root).as_posix()
        try:
            record = read_withdrawal(file)
        except ValueError as error:
            yield Problem(path, str(error).removeprefix(f"{file}: "))
            continue
        for artifact in stale(record, stages, hashes):
            yield Problem(artifact, f"stale: made before the withdrawal {path}; run `dvc repro`")


def stale(record: dict[str, Any], stages: dict[str, Stage], hashes: Hashes) -> list[str]:
    """The outputs that were made with the images of a withdrawn person, by what their stages read.

    Equal bytes alone do not make an output stale: a list that is empty with and without the person stays the same. An
    output that a withdrawal names is stale while its stage has not run on data without the person.
    """
    before, found = record["stale"], set[str]()
    sources = paths.of_dataset(record["dataset"])

    def unchanged(stage: Stage) -> list[str]:
        return [path for path, digest in stage.outs.items() if before.get(path) == digest]

    def is_stale(stage: Stage) -> bool:
        return (
            any(path in sources for path in unchanged(stage))
            or any(hashes.of(path) != digest for path, digest in stage.data.items())
            or any(other.name in found for other in above(stages, stage))
        )

    waiting = [stage for stage in stages.values() if unchanged(stage)]
    while more := {stage.name for stage in waiting if stage.name not in found and is_stale(stage)}:
        found |= more
    return [path for name in stages if name in found for path in unchanged(stages[name])]


def approvals(root: Path) -> Iterator[Problem]:
    """Approvals that are malformed or of other data than those in the workspace."""
    for path, message in approval.problems(root):
        yield Problem(path, message)
