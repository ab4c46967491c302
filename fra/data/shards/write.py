"""Writes WebDataset tar shards and the manifest: the versioned content of a data set.

Each split is divided into shards of at most `images_per_shard` records. Each shard is written by one process from its
records alone, so shards can be written anywhere and in any order, and always have the same bytes. An image stays in the
shard where the previous manifest has it: new images fill the last shard and then new ones, changed or removed images
make theirs be rewritten, and the other shards are not touched. `index.json` is written last: a folder without it is
incomplete.

A state folder remembers what each shard was made from. It only saves work: without it every shard is written again,
with the same bytes. A run that was killed continues where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from fra.data.executors import Executor, local
from fra.data.shards.config import ShardConfig
from fra.data.shards.manifest import assemble, index
from fra.data.shards.plan import jobs_of, plan, row_hashes, rows_of
from fra.data.shards.tar import FILE_COLUMNS, ShardJob, write_shard
from fra.files import read_parquet, sha256, write_json, write_parquet


@dataclass(frozen=True)
class PreviousRun:
    """What the previous run left that is still valid.

    Attributes:
        manifest: Its manifest, in the order of its rows.
        shards: Fingerprint, SHA-256 and size in bytes of each tar, by name.
        refused: Images that could not be decoded, with their row hashes at that time.
    """

    manifest: pd.DataFrame
    shards: dict[str, dict[str, Any]]
    refused: dict[str, str]

    def has(self, job: ShardJob) -> bool:
        """Whether the shard exists already with the bytes that it would get; False where that cannot be known."""
        return job.reproducible and self.shards.get(job.name, {}).get("fingerprint") == job.fingerprint


def load_previous(out: Path, manifest: Path, state: Path, images_per_shard: int) -> PreviousRun:
    """What is still valid of the previous run, finished or not.

    The hashes of the tars are trusted where `index.json` is the one that the state was saved with; otherwise they are
    computed again.
    """
    try:
        done = json.loads((state / "done.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        done = {"index": "", "images_per_shard": 0, "shards": {}, "refused": {}}
    index = out / "index.json"
    listed = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else done
    columns = ["key", *FILE_COLUMNS, "shard", "error"]
    if not manifest.is_file() or listed.get("images_per_shard") not in (images_per_shard, None):
        return PreviousRun(pd.DataFrame({name: pd.array([], "string") for name in columns}), {}, {})
    trusted = index.is_file() and sha256(index) == done["index"]
    shards = {
        name: entry
        for name, entry in done["shards"].items()
        if (out / name).is_file()
        and (out / name).stat().st_size == entry["bytes"]
        and (trusted or sha256(out / name) == entry["sha256"])
    }
    return PreviousRun(read_parquet(manifest, columns=columns), shards, done["refused"])


def just_written(job: ShardJob) -> bool:
    """Whether an interrupted run had already finished this shard."""
    try:
        entry = json.loads((job.state / f"{job.name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    if not job.reproducible or entry["fingerprint"] != job.fingerprint:
        return False
    path = job.out / job.name
    return sha256(path) == entry["sha256"] if path.is_file() else not any(map(bool, entry["found"]["width"]))


def still_refused(records: pd.DataFrame, hashes: NDArray[np.uint64], previous: PreviousRun) -> dict[str, str]:
    """Images that could not be decoded in the previous run and have not changed since, with the reason."""
    candidates = records["key"].isin(list(previous.refused))
    errors = previous.manifest[previous.manifest["error"].notna()].set_index("key")["error"]
    return {
        key: str(errors[key])
        for key, mark in zip(records["key"][candidates], hashes[candidates], strict=True)
        if f"{mark:016x}" == previous.refused[key] and key in errors
    }


def photo_problems(records: pd.DataFrame) -> dict[str, str]:
    """Photographs without a face to crop, by key, with the reason."""
    if "photo.problem" not in records:
        return {}
    found = records[records["photo.problem"].notna()]
    return dict(zip(found["key"], found["photo.problem"], strict=True))


def remove_stale(out: Path, jobs: list[ShardJob], names: set[str]) -> None:
    """Removes everything in `out` but the shards `names`; and `index.json`, unless `out` is complete already.

    Args:
        out: The folder of the shards.
        jobs: The shards that are missing or outdated.
        names: File names of all shards that the data set has now.
    """
    if jobs or not all((out / name).is_file() for name in names):
        (out / "index.json").unlink(missing_ok=True)
    for stale in out.iterdir():
        if stale.name not in names and stale.name != "index.json":
            (out / "index.json").unlink(missing_ok=True)
            if stale.is_dir() and not stale.is_symlink():
                shutil.rmtree(stale)
            else:
                stale.unlink()


def write(
    records: pd.DataFrame,
    root: Path,
    out: Path,
    manifest: Path,
    config: ShardConfig,
    state: Path,
    *,
    broken: Mapping[str, str] | None = None,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Writes tar shards into `out`, `out/index.json` and the manifest; returns the manifest.

    Args:
        records: The table that `ingest` writes.
        root: The folder with the image files.
        out: The folder for the shards; everything else in it is removed.
        manifest: The file for the manifest.
        config: How to shard.
        state: A folder that only this function uses.
        broken: Images that turned out to be undecodable when the betons were written, with the reason; they are
            removed from the shards.
        executor: Where to write the shards; processes of this machine by default.

    Raises:
        FileNotFoundError: An image that was listed no longer exists.
        ValueError: No image can be decoded.
    """
    previous = load_previous(out, manifest, state, config.images_per_shard)
    hashes = row_hashes(records)
    refused = still_refused(records, hashes, previous) | photo_problems(records) | dict(broken or {})
    reproducible = records["modified"].notna()
    reproducible |= records["content"].notna() if "content" in records else False
    last = rows_of(records["key"], previous.manifest["key"])
    hashed = records.assign(hash=hashes, reproducible=reproducible.to_numpy(bool), last=last)
    wanted = ~records["key"].isin(list(refused))
    planned = plan(hashed[wanted], config.images_per_shard, previous.manifest["shard"])
    jobs = jobs_of(planned, root, out, state, config.keep_metadata)
    outdated = [job for job in jobs if not previous.has(job)]
    out.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    remove_stale(out, outdated, {job.name for job in jobs})
    unwritten = [job for job in outdated if not just_written(job)]
    write_shards(jobs, unwritten, out, executor or local(config.workers))
    entries = {
        job.name: json.loads((state / f"{job.name}.json").read_text(encoding="utf-8")) for job in outdated
    }
    left_out = hashed[~wanted]
    table = assemble(pd.concat([planned, left_out]), previous.manifest, entries, refused)
    if not table["shard"].notna().any():
        example = table.iloc[0]
        raise ValueError(
            f"{root}: none of {len(table)} images can be decoded; {example['source']}: {example['error']}"
        )
    finish(table, planned, hashed, previous.shards | entries, out, manifest, config, state)
    for name in entries:
        (state / f"{name}.json").unlink()
    return table


def write_shards(jobs: list[ShardJob], unwritten: list[ShardJob], out: Path, executor: Executor) -> None:
    """Writes those of the shards that are `unwritten` into `out`, with a progress bar over all of them."""
    total = sum(len(job.records) for job in jobs)
    remaining = sum(len(job.records) for job in unwritten)
    with tqdm(total=total, initial=total - remaining, unit="image", desc="shards", mininterval=1) as progress:
        for done in executor(write_shard, unwritten):
            progress.update(done)
    for partial in out.glob(".*.partial"):  # left by a worker that was killed
        partial.unlink()


def finish(
    table: pd.DataFrame,
    planned: pd.DataFrame,
    hashed: pd.DataFrame,
    tars: dict[str, dict[str, Any]],
    out: Path,
    manifest: Path,
    config: ShardConfig,
    state: Path,
) -> None:
    """Writes the manifest, then `index.json`, then the state.

    The fingerprint in the state covers the records that stayed in a shard: the next run does not try undecodable images
    again until they change.

    Args:
        table: The manifest.
        planned: The records as they were assigned to shards, with those that then could not be decoded.
        hashed: All records, with the column `hash` of `row_hashes`.
        tars: SHA-256 and size in bytes of each tar, by file name.
        out: The folder of the shards.
        manifest: The file for the manifest.
        config: How the records were sharded.
        state: The folder for the state.
    """
    bad = table.loc[table["error"].notna(), "key"].tolist()
    good = planned[~planned["key"].isin(bad)]
    marks = {job.name: job.fingerprint for job in jobs_of(good, Path(), out, state, config.keep_metadata)}
    shards = {
        name: {"fingerprint": mark, "sha256": tars[name]["sha256"], "bytes": tars[name]["bytes"]}
        for name, mark in marks.items()
    }
    refused = hashed[hashed["key"].isin(bad)]
    write_parquet(table, manifest)
    write_json(index(table, shards, config.images_per_shard), out / "index.json")
    write_json(
        {
            "index": sha256(out / "index.json"),
            "images_per_shard": config.images_per_shard,
            "shards": shards,
            "refused": {
                key: f"{mark:016x}" for key, mark in zip(refused["key"], refused["hash"], strict=True)
            },
        },
        state / "done.json",
    )
