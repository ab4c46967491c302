"""Other runs than the present one: the dvc.lock of every DVC experiment and branch, read from git in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.repo import git
from pipelines.repo.lock import Stage, parse


@dataclass(frozen=True)
class Run:
    """A run in history: the name of its experiment or branch, its commit, and its dvc.lock as bytes."""

    name: str
    commit: str
    lock: bytes

    def stages(self) -> dict[str, Stage]:
        """The stages of its dvc.lock by name. Raises `LineageError` where that is not a lock file."""
        return parse(self.lock)


def runs(root: Path = Path()) -> list[Run]:
    """Every experiment and branch that has a dvc.lock; empty outside of git."""
    try:
        listing = git.text(
            "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps", "refs/heads", root=root
        )
    except git.GitError:
        return []
    refs = [
        (commit, name)
        for commit, _, name in (line.partition(" ") for line in listing.splitlines())
        if not name.startswith("refs/exps/exec")
    ]
    locks = git.objects([f"{commit}:./dvc.lock" for commit, _ in refs], root) if refs else []
    return [
        Run(name.rsplit("/", 1)[-1], commit, content)
        for (commit, name), content in zip(refs, locks, strict=True)
        if content is not None
    ]


def runs_with_object(digest: str, root: Path = Path()) -> list[Run]:
    """The runs whose dvc.lock names an object of DVC's cache."""
    return [run for run in runs(root) if digest.encode() in run.lock]
