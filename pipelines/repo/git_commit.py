"""Commits the results of a run: dvc.lock, which names every file that was made, and the parameters."""

from __future__ import annotations

from logging import Logger, LoggerAdapter
from typing import Any

from pipelines.repo import git

FILES = ["dvc.lock", "params.yaml", "pipelines/conf/project.yaml"]


def commit(log: Logger | LoggerAdapter[Any]) -> None:
    """Commits `FILES` where they changed; other staged or changed files stay as they are.

    Raises:
        GitError: git failed (no repository, no identity); the message is git's own.
    """
    git.run("add", "--", *FILES)
    if not git.text("status", "--porcelain", "--", *FILES):
        log.info("nothing to commit: the results are already in git")
        return
    git.run("commit", "--quiet", "-m", "Results of a pipeline run", "--", *FILES)
    log.info("committed %s as %s", " and ".join(FILES), git.text("rev-parse", "--short", "HEAD"))
