"""Runs beside the present one: the dvc.lock of every DVC experiment and branch, read from git in one go."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipelines.repo.lock import Stage, parse


@dataclass(frozen=True)
class Run:
    """A run in history: its name (of the experiment, or branch), its commit, and its dvc.lock as bytes."""

    name: str
    commit: str
    lock: bytes

    def stages(self) -> dict[str, Stage]:
        return parse(self.lock)


def runs(root: Path = Path()) -> list[Run]:
    """Every experiment and branch that has a dvc.lock; none outside of git."""
    listing = subprocess.run(
        ["git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps", "refs/heads"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        return []
    refs = [line.split(" ", 1) for line in listing.stdout.splitlines()]
    refs = [(commit, name) for commit, name in refs if not name.startswith("refs/exps/exec")]
    asked = "".join(f"{commit}:dvc.lock\n" for commit, _ in refs).encode()
    answer = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=root, input=asked, capture_output=True, check=True
    ).stdout
    found, place = [], 0
    for commit, name in refs:
        end = answer.index(b"\n", place)
        header, place = answer[place:end].split(), end + 1
        if header[-1] == b"missing":
            continue
        size = int(header[2])
        found.append(Run(name.rsplit("/", 1)[-1], commit, answer[place : place + size]))
        place += size + 1
    return found


def holding(digest: str, root: Path = Path()) -> list[Run]:
    """The runs whose dvc.lock names an object."""
    needle = digest.encode()
    return [run for run in runs(root) if needle in run.lock]
