"""Verifies a lineage: computes every hash again and compares every record with the others.

Nothing is trusted because of its location: the workspace is compared with dvc.lock; dvc.lock with params.yaml,
dvc.yaml, git, DVC's run cache and the records of the stages; each stage's inputs with the outputs of the stage that
made them; the cache with its own names; validation results with the data; weights with their own hash and metadata;
metrics with predictions; code with the commit in the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.lineage.checks import cache, evidence, limits, lock, people, statement
from pipelines.lineage.problem import Problem
from pipelines.repo.hashes import CACHE, Hashes
from pipelines.repo.lock import LineageError, ancestry, read


@dataclass(frozen=True)
class Verification:
    """The problems that were found, sorted, and what could not be checked, one line each."""

    problems: list[Problem]
    limits: list[str]


def verify(
    root: Path = Path(),
    artifact: str | None = None,
    remote: Path | None = None,
    public_key: Path | None = None,
    statements: bool = True,
) -> Verification:
    """Verifies the lineage of a project.

    Args:
        root: the project.
        artifact: verify only what this artifact was made from.
        remote: a folder that is a DVC remote, whose objects are verified too.
        public_key: an Ed25519 key (PEM) by which the statement about the backbone must be signed.
        statements: whether the statement about the backbone is verified.

    Raises:
        LineageError: there is no lineage, `artifact` is not in it, or `remote` is not a folder with DVC's objects.
    """
    stages = read(root)
    complete = artifact is None
    if artifact is not None:
        stages = ancestry(stages, artifact)
    if remote is not None and not (remote / "files/md5").is_dir():
        raise LineageError(f"{remote}: no such folder, or not a DVC remote with files: `dvc push` fills it")
    hashes = Hashes(root)
    hashes.read({path for stage in stages.values() for path in (*stage.deps, *stage.outs)})
    runs = cache.recorded_runs(stages, root)
    checks: tuple[Iterable[Problem], ...] = (
        lock.workspace(stages, hashes),
        lock.chain(stages),
        lock.graph(stages, root, complete),
        lock.committed_graph(stages, root, complete),
        cache.objects(stages, hashes, root / CACHE, root),
        cache.objects(stages, hashes, remote, root) if remote else (),
        cache.earlier_runs(stages, runs),
        evidence.records(stages, root, hashes, complete),
        evidence.code(stages, root),
        evidence.validation(stages, root),
        evidence.shards(stages, root),
        evidence.weights(stages, root),
        evidence.seeds(stages, root),
        evidence.metrics(stages, root),
        people.withdrawals(stages, root, hashes),
        people.approvals(root),
        statement.backbone(stages, root, public_key) if statements else (),
    )
    return Verification(
        problems=sorted({problem for check in checks for problem in check}),
        limits=limits.limits(stages, root, runs, remote, public_key),
    )
