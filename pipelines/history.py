"""Writes the results of a run into git: dvc.lock, which names every byte that was made, and the parameters."""

from __future__ import annotations

import subprocess
from logging import Logger, LoggerAdapter
from typing import Any

FILES = ["dvc.lock", "params.yaml", "fra/conf/project.yaml"]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {arguments[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def commit(log: Logger | LoggerAdapter[Any]) -> None:
    """Commits `FILES` alone, where they changed; whatever else is staged or changed stays as it is.

    Raises:
        RuntimeError: git cannot, in its own words (no repository, no identity).
    """
    git("add", "--", *FILES)
    if not git("status", "--porcelain", "--", *FILES):
        log.info("nothing to commit: the results are those in git")
        return
    git("commit", "--quiet", "-m", "Results of a pipeline run", "--", *FILES)
    log.info("committed %s as %s", " and ".join(FILES), git("rev-parse", "--short", "HEAD"))
