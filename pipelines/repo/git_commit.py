"""Writes the results of a run into git: dvc.lock, which names every byte that was made, and the parameters."""

from __future__ import annotations

import hashlib
import subprocess
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any

from pipelines.repo.lock import listing_digest

FILES = ["dvc.lock", "params.yaml", "pipelines/conf/project.yaml"]


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


def committed_digest(path: str, commit: str, root: Path = Path()) -> str | None:
    """DVC's hash of a file or folder as `commit` has it; None where the commit does not have it.

    Of a file the MD5 of its bytes, of a folder the MD5 of its listing with the suffix ".dir".
    """
    listing = subprocess.run(
        ["git", "ls-tree", "-r", "-z", commit, "--", path], cwd=root, capture_output=True, check=False
    )
    entries = [entry.split(b"\t", 1) for entry in listing.stdout.split(b"\0") if entry]
    if listing.returncode or not entries:
        return None
    objects = [about.split()[2] for about, _ in entries]
    answer = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=root,
        input=b"\n".join(objects) + b"\n",
        capture_output=True,
        check=True,
    ).stdout
    digests, place = [], 0
    for _ in objects:
        end = answer.index(b"\n", place)
        size = int(answer[place:end].split()[2])
        digests.append(hashlib.md5(answer[end + 1 : end + 1 + size], usedforsecurity=False).hexdigest())
        place = end + 1 + size + 1
    names = [name.decode("utf-8", "surrogateescape") for _, name in entries]
    if names == [path]:
        return digests[0]
    return listing_digest(
        (name.removeprefix(f"{path}/"), digest) for name, digest in zip(names, digests, strict=True)
    )
