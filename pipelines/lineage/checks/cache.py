"""DVC's cache and its record of earlier runs (the run cache), compared with dvc.lock."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipelines.lineage.problem import Problem
from pipelines.repo import git, run_cache
from pipelines.repo.hashes import Hashes, md5, object_path
from pipelines.repo.lock import LineageError, Stage, parse


def objects(stages: dict[str, Stage], hashes: Hashes, store: Path, root: Path) -> Iterator[Problem]:
    """Every object of the outputs in DVC's cache, or in a remote folder, compared with its own name.

    An object that is missing is not a problem: a cache may be cleaned.
    """
    digests = {digest for stage in stages.values() for digest in stage.outs.values()}
    for digest in [name for name in digests if name.endswith(".dir")]:
        listing = object_path(store, digest)
        if listing.is_file():
            with suppress(ValueError, KeyError, TypeError):  # its own hash does not agree either
                digests |= {entry["md5"] for entry in json.loads(listing.read_bytes())}
    places = {digest: object_path(store, digest) for digest in sorted(digests)}
    known = {(stat.st_dev, stat.st_ino): digest for digest, stat in inodes(hashes)}
    unread, found = {}, {}
    for digest, path in places.items():
        if not path.is_file():
            continue
        stat = path.stat()
        linked = known.get((stat.st_dev, stat.st_ino))  # the same file as one of the workspace: read already
        if linked is None:
            unread[digest] = path
        else:
            found[digest] = linked
    with ThreadPoolExecutor(hashes.workers) as pool:
        found |= dict(zip(unread, pool.map(md5, unread.values()), strict=True))
    for digest, content in found.items():
        if content != digest.removesuffix(".dir"):
            path = places[digest]
            shown = path.relative_to(root) if path.is_relative_to(root) else path
            yield Problem(
                shown.as_posix(), "the object's content does not have the hash in its name", f"MD5 {content}"
            )


def inodes(hashes: Hashes) -> Iterator[tuple[str, os.stat_result]]:
    """The hash and the status of each file of the workspace that was read."""
    for path, digest in hashes.files.items():
        yield digest, (hashes.root / path).stat()


def recorded_runs(stages: dict[str, Stage], root: Path) -> dict[str, list[Stage]]:
    """Per stage, the runs with its inputs or outputs in DVC's run cache and in dvc.lock of the current commit."""
    found = run_cache.related(stages, root)
    for name, run in committed(root).items():
        if name in stages and run_cache.is_related(stages[name], run):
            found[name].append(run)
    return found


def committed(root: Path) -> dict[str, Stage]:
    """The stages of dvc.lock in the current commit; empty where there is none."""
    text = git.show("HEAD", "dvc.lock", root)
    if text is None:
        return {}
    try:
        return parse(text)
    except LineageError:
        return {}


def earlier_runs(stages: dict[str, Stage], recorded: dict[str, list[Stage]]) -> Iterator[Problem]:
    """Each stage compared with the runs of `recorded_runs`: one that shares its inputs or outputs must equal it."""
    for stage in stages.values():
        runs = recorded[stage.name]
        if runs and not any(run_cache.same(stage, run) for run in runs):
            closest = min((run_cache.differences(stage, run) for run in runs), key=len)
            yield Problem(
                "dvc.lock",
                f"{stage.name} is not a recorded run: DVC's run cache or git has it with another {', '.join(closest)}",
            )
