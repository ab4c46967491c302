"""WebDataset tar shards and the manifest: the versioned truth of a data set.

Each split is cut into shards of at most `images_per_shard` records; each shard is written by one process from its
records alone, so shards can be made anywhere, in any order, and always have the same bytes. An image stays in the
shard that the last manifest has it in: new images fill the last shard and then make new ones, changed or removed
images rewrite theirs, and the other shards are not touched. `index.json` is written last: a folder without it is not
a finished set.

What has been written from what is remembered in a folder of state, which is only ever a shortcut: without it every
shard is written again, to the same bytes. A run that was killed continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from fra.data.shards.config import ShardConfig
from fra.data.shards.executors import Spread, local
from fra.data.shards.manifest import assemble, index
from fra.data.shards.plan import jobs_of, plan, row_hashes, rows_of
from fra.data.shards.tar import FOUND, Job, write_shard
from fra.files import read_parquet, sha256, write_json, write_parquet


@dataclass(frozen=True)
class Past:
    """What is known of the last run. `manifest`, by row; `shards` by name: fingerprint, sha256, bytes of the tar;
    `refused`: images that could not be decoded, and the row hash they had then."""

    manifest: pd.DataFrame
    shards: dict[str, dict[str, Any]]
    refused: dict[str, str]

    def holds(self, job: Job) -> bool:
        """Whether a shard is there already, from these very records."""
        return job.known and self.shards.get(job.name, {}).get("fingerprint") == job.fingerprint


# ---- which record belongs where


# ---- what the last run left


def remembered(out: Path, manifest: Path, state: Path, images_per_shard: int) -> Past:
    """What of the last run, finished or not, still holds.

    Tars are taken at their word where `index.json` is the one that the state was saved with; else they are hashed.
    """
    try:
        done = json.loads((state / "done.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        done = {"index": "", "images_per_shard": 0, "shards": {}, "refused": {}}
    index = out / "index.json"
    said = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else done
    columns = ["key", *FOUND, "shard", "error"]
    if not manifest.is_file() or said.get("images_per_shard") not in (images_per_shard, None):
        return Past(pd.DataFrame({name: pd.array([], "string") for name in columns}), {}, {})
    trusted = index.is_file() and sha256(index) == done["index"]
    shards = {
        name: entry
        for name, entry in done["shards"].items()
        if (out / name).is_file()
        and (out / name).stat().st_size == entry["bytes"]
        and (trusted or sha256(out / name) == entry["sha256"])
    }
    return Past(read_parquet(manifest, columns=columns), shards, done["refused"])


def just_written(job: Job) -> bool:
    """Whether a run that was interrupted had finished this very shard."""
    try:
        entry = json.loads((job.state / f"{job.name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    if not job.known or entry["fingerprint"] != job.fingerprint:
        return False
    path = job.out / job.name
    return sha256(path) == entry["sha256"] if path.is_file() else not any(map(bool, entry["found"]["width"]))


def still_refused(records: pd.DataFrame, hashes: NDArray[np.uint64], past: Past) -> dict[str, str]:
    """Images that could not be decoded the last time and have not changed since: key → why."""
    asked = records["key"].isin(list(past.refused))
    errors = past.manifest[past.manifest["error"].notna()].set_index("key")["error"]
    return {
        key: str(errors[key])
        for key, mark in zip(records["key"][asked], hashes[asked], strict=True)
        if f"{mark:016x}" == past.refused[key] and key in errors
    }


def clear(out: Path, jobs: list[Job], names: set[str]) -> None:
    """Takes away the mark of a finished set where there is work to do, and every shard that is in no plan."""
    if jobs or not all((out / name).is_file() for name in names):
        (out / "index.json").unlink(missing_ok=True)
    for stale in out.iterdir():
        if stale.name not in names and stale.name != "index.json":
            (out / "index.json").unlink(missing_ok=True)
            stale.unlink()


# ---- the whole set


def write(
    records: pd.DataFrame,
    root: Path,
    out: Path,
    manifest: Path,
    config: ShardConfig,
    state: Path,
    *,
    broken: Mapping[str, str] | None = None,
    spread: Spread | None = None,
) -> pd.DataFrame:
    """Records → tar shards in `out`, `out/index.json` and the manifest.

    `state` is a folder of this function's own. `broken` (key → why) are images that turned out not to be whole when
    they were decoded; they leave the shards. `spread` runs the work elsewhere.

    Raises:
        FileNotFoundError: an image that was listed is gone.
        ValueError: no image could be decoded.
    """
    past = remembered(out, manifest, state, config.images_per_shard)
    hashes = row_hashes(records)
    refused = still_refused(records, hashes, past) | dict(broken or {})
    known = records["modified"].notna()
    known |= records["content"].notna() if "content" in records else False
    last = rows_of(records["key"], past.manifest["key"])
    marked = records.assign(hash=hashes, known=known.to_numpy(bool), last=last)
    wanted = ~records["key"].isin(list(refused))
    planned = plan(marked[wanted], config.images_per_shard, past.manifest["shard"])
    jobs = jobs_of(planned, root, out, state, config.keep_metadata)
    todo = [job for job in jobs if not past.holds(job)]
    out.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    clear(out, todo, {job.name for job in jobs})
    work(jobs, [job for job in todo if not just_written(job)], out, spread or local(config.workers))
    entries = {job.name: json.loads((state / f"{job.name}.json").read_text(encoding="utf-8")) for job in todo}
    left_out = marked[~wanted]
    table = assemble(pd.concat([planned, left_out]), past.manifest, entries, refused)
    if not table["shard"].notna().any():
        example = table.iloc[0]
        raise ValueError(
            f"{root}: none of {len(table)} images can be decoded; {example['source']}: {example['error']}"
        )
    finish(table, planned, marked, past.shards | entries, out, manifest, config, state)
    for name in entries:
        (state / f"{name}.json").unlink()
    return table


def work(jobs: list[Job], todo: list[Job], out: Path, spread: Spread) -> None:
    """Writes the shards `todo` out of all into `out`, with a bar."""
    images = {job.name: len(job.records) for job in jobs}
    at_work = sum(len(job.records) for job in todo)
    with tqdm(
        total=sum(images.values()),
        initial=sum(images.values()) - at_work,
        unit="image",
        desc="shards",
        mininterval=1,
    ) as progress:
        for done in spread(write_shard, todo):
            progress.update(done)
    for torn in out.glob(".*.partial"):  # by a worker that was killed
        torn.unlink()


def finish(
    table: pd.DataFrame,
    planned: pd.DataFrame,
    marked: pd.DataFrame,
    tars: dict[str, dict[str, Any]],
    out: Path,
    manifest: Path,
    config: ShardConfig,
    state: Path,
) -> None:
    """Writes manifest, `index.json` (last of what others read) and the state.

    A shard is remembered by the records that stayed: those that were refused are not asked for again.
    """
    bad = table.loc[table["error"].notna(), "key"].tolist()
    good = planned[~planned["key"].isin(bad)]
    marks = {job.name: job.fingerprint for job in jobs_of(good, Path(), out, state, config.keep_metadata)}
    shards = {
        name: {"fingerprint": mark, "sha256": tars[name]["sha256"], "bytes": tars[name]["bytes"]}
        for name, mark in marks.items()
    }
    refused = marked[marked["key"].isin(bad)]
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
