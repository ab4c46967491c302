"""The statement about the backbone (`fra lineage attest`) compared with the weights, dvc.lock and a public key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.lineage import in_toto
from pipelines.lineage.problem import Problem
from pipelines.project import paths
from pipelines.repo.lock import Stage


def backbone(stages: dict[str, Stage], root: Path, public_key: Path | None) -> Iterator[Problem]:
    """The statement about the backbone, where there is one or a public key requires one."""
    if not any(paths.BACKBONE.as_posix() in stage.outs for stage in stages.values()):
        return
    path = paths.STATEMENT.as_posix()
    if not (root / path).is_file():
        if public_key is not None:
            yield Problem(path, "missing: `fra lineage attest --key …` writes and signs it")
    elif (root / paths.BACKBONE).is_file():
        for message in in_toto.check(root / path, root / paths.BACKBONE, public_key, root):
            yield Problem(path, message.removeprefix(f"{root / path}: "))
