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

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from fra.data.files import read_parquet, sha256, write_json, write_parquet
from fra.data.records import SPLITS
from fra.data.spread import Spread, local
from fra.data.tar import FOUND, Job, write_shard

COLUMNS = ("key", "split", "person", *FOUND, "source", "shard", "index", "error")
"""The manifest's columns; labels, measures and landmarks follow."""
APART = ("landmarks", "box", "span", "content")
"""Columns of records that hold no plain values."""
MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd number with even bits: keeps hashes apart where they are added."""


@dataclass(frozen=True)
class ShardConfig:
    """How records become shards and betons. `workers` 0 = one a core.

    `beton_mode` is how FFCV keeps pixels: "raw" (exact, large), "jpg" (at `jpeg_quality`), or "smart" (raw where an
    image has fewer than `raw_bytes` bytes of pixels). Sides longer than `max_side` are scaled down in the beton; the
    tar shards keep the file's own pixels. `keep_metadata` keeps what image files say beside their picture (place,
    time, camera, comments, previews; see `fra.data.metadata`). `runner` is who writes the shards: the processes of
    this machine ("local"), or the workers of a Dask scheduler at `dask_address`, which see the same folders.
    """

    images_per_shard: int = 1000
    workers: int = 0
    beton_mode: str = "smart"
    jpeg_quality: int = 95
    raw_bytes: int = 65536
    max_side: int = 512
    keep_metadata: bool = False
    runner: str = "local"
    dask_address: str | None = None

    def __post_init__(self) -> None:
        if self.images_per_shard < 1:
            raise ValueError(f"shard.images_per_shard is {self.images_per_shard}: must be at least 1")
        if self.beton_mode not in ("raw", "jpg", "smart"):
            raise ValueError(f"shard.beton_mode is {self.beton_mode!r}: choose raw, jpg or smart")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"shard.jpeg_quality is {self.jpeg_quality}: must be 1 to 100")
        if self.runner not in ("local", "dask"):
            raise ValueError(f"shard.runner is {self.runner!r}: choose local or dask")
        if self.runner == "dask" and not self.dask_address:
            raise ValueError("shard.dask_address is not set: where is the Dask scheduler (tcp://host:8786)?")


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


def order_of(keys: Iterable[str]) -> NDArray[np.uint64]:
    """A number a key, which shuffles them: the first eight bytes of its SHA-256."""
    digests = (hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8] for key in keys)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def rows_of(keys: pd.Series, table: pd.Series) -> NDArray[np.int64]:
    """The row of each key among the keys of `table`, or -1."""
    found = pc.index_in(pa.array(keys, pa.large_string()), value_set=pa.array(table, pa.large_string()))
    return np.asarray(found.fill_null(-1), dtype=np.int64)


def numbers_of(shards: pd.Series, split: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each record's shard as far as it is one of the record's split, else -1."""
    codes, names = pd.factorize(shards)
    found = [re.fullmatch(r"(\w+)-(\d{6,})\.tar", str(name)) for name in names]
    splits = np.array([SPLITS.index(part[1]) if part else -1 for part in found] + [-1])
    numbers = np.array([int(part[2]) if part else -1 for part in found] + [-1], dtype=np.int64)
    return np.where(splits[codes] == split, numbers[codes], np.int64(-1))


def plan(records: pd.DataFrame, images_per_shard: int, before: pd.Series) -> pd.DataFrame:
    """The records with the column `shard`, in the order of splits, shards and, within one, a hash of the key.

    `before` is the shards of the last manifest's rows, which are in this same order, and the column `last` the
    record's row there or -1: it stays in its shard. Others fill up the last shard of their split and then new ones.
    """
    split = pd.Categorical(records["split"], SPLITS).codes.astype(np.int64)
    last_row = records["last"].to_numpy(np.int64)
    number = numbers_of(before.reindex(last_row), split)
    mixed = number < 0  # records of shards that get new ones; in the others, the order is known
    for code in range(len(SPLITS)):
        new = np.flatnonzero((split == code) & (number < 0))
        new = new[np.argsort(order_of(records["key"].iloc[new]), kind="stable")]
        old = number[(split == code) & (number >= 0)]
        last = int(old.max(initial=0))
        start = last * images_per_shard + min(int((old == last).sum()), images_per_shard)
        number[new] = (start + np.arange(len(new))) // images_per_shard
        mixed |= (split == code) & (number == start // images_per_shard)
    order = last_row.astype(np.uint64)
    order[mixed] = order_of(records["key"][mixed])
    rank = np.lexsort((order, number, split))
    shards, of_record = np.unique(split[rank] * 10**12 + number[rank], return_inverse=True)
    names = [f"{SPLITS[shard // 10**12]}-{shard % 10**12:06d}.tar" for shard in shards.tolist()]
    return records.iloc[rank].assign(shard=pd.array(np.array(names, dtype=object)[of_record], dtype="string"))


def content_of(value: Any) -> bytes:
    """The bytes of a list of numbers, of bytes, or of None."""
    if value is None or isinstance(value, bytes):
        return value or b""
    return np.asarray(value, np.float64).tobytes()


def row_hashes(records: pd.DataFrame) -> NDArray[np.uint64]:
    """A number a record that changes with anything that the manifest or its shard says of it."""
    names = (records["key"] + "\0" + records["source"]).to_numpy(object)
    plain = records.drop(columns=["key", "source", *(name for name in APART if name in records)])
    hashes = pd.util.hash_pandas_object(plain, index=False).to_numpy(np.uint64) * MIX
    hashes += pd.util.hash_array(names, categorize=False)
    for name in APART:
        if name in records and records[name].notna().any():
            digests = b"".join(
                hashlib.blake2b(content_of(value), digest_size=8).digest() for value in records[name]
            )
            hashes = hashes * MIX + np.frombuffer(digests, dtype=np.uint64)
    return np.asarray(hashes, dtype=np.uint64)


def fingerprint(hashes: NDArray[np.uint64], keep_metadata: bool) -> str:
    return hashlib.sha256(hashes.tobytes() + bytes([keep_metadata])).hexdigest()


def jobs_of(planned: pd.DataFrame, root: Path, out: Path, state: Path, keep_metadata: bool) -> list[Job]:
    """One job a shard. `planned` is in the shards' order, with the columns `hash` and `known`."""
    names = planned["shard"].to_numpy(object)
    changes = np.flatnonzero(names[1:] != names[:-1]) + 1
    bounds = [0, *changes.tolist(), len(names)] if len(names) else []
    jobs = []
    hashes, known = planned["hash"].to_numpy(np.uint64), planned["known"].to_numpy(bool)
    for start, end in pairwise(bounds):
        mark, rows = fingerprint(hashes[start:end], keep_metadata), planned.iloc[start:end]
        jobs.append(
            Job(str(names[start]), rows, mark, bool(known[start:end].all()), keep_metadata, root, out, state)
        )
    return jobs


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


def facts_of(listed: pd.DataFrame, before: pd.DataFrame, entries: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """What is known of each record's bytes: from the shard that was written, else from its row in the last manifest."""
    found = [
        pd.DataFrame(entry["found"]).astype({"key": "string", "error": "string"})
        for entry in entries.values()
    ]
    if not found:
        return before.reindex(listed["last"])
    fresh = pd.concat(found, ignore_index=True)
    row = rows_of(listed["key"], fresh["key"])
    if not len(before):
        return fresh.reindex(row)
    everything = pd.concat([fresh, before], ignore_index=True)
    last = listed["last"].to_numpy(np.int64)
    return everything.reindex(np.where(row >= 0, row, np.where(last >= 0, last + len(fresh), -1)))


def assemble(
    listed: pd.DataFrame,
    before: pd.DataFrame,
    entries: dict[str, dict[str, Any]],
    refused: Mapping[str, str],
) -> pd.DataFrame:
    """The manifest: records and what was found in their bytes, in shard order, then those that were refused by key;
    `index` counts within a split."""
    listed = listed.reset_index(drop=True)
    facts = facts_of(listed, before, entries)
    if "span" in listed:  # a tar is told by its name: its folder or server is nobody's business
        tars = listed["source"].map(lambda url: PurePosixPath(urlsplit(url).path).name)
        listed = listed.assign(source=listed["source"].mask(listed["span"].notna(), tars))
    table = listed.drop(columns=[*FOUND, *APART[1:]], errors="ignore")
    table = table.assign(**{name: facts[name].array for name in (*FOUND, "error")})
    told = table["key"].isin(list(refused))
    table.loc[told, "error"] = [refused[key] for key in table.loc[told, "key"]]
    bad = table["error"].notna()
    table.loc[bad, ["width", "height"]] = 0
    table.loc[bad, "mode"] = ""
    table["shard"] = table["shard"].astype("string").mask(bad)
    table = pd.concat([table[~bad], table[bad].sort_values("key")], ignore_index=True)
    sharded = table["shard"].notna()
    table["index"] = (
        (sharded.groupby(table["split"], sort=False).cumsum() - 1).where(sharded, -1).astype("int64")
    )
    whole = dict.fromkeys(("bytes", "width", "height"), "int64")
    labels = [name for name in table.columns if name.startswith(("label.", "measure."))]
    return table.astype({**whole, "mode": "string", "sha256": "string", "error": "string"})[
        [*COLUMNS, *labels, "landmarks"]
    ]


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


def index(table: pd.DataFrame, shards: dict[str, dict[str, Any]], images_per_shard: int) -> dict[str, Any]:
    """What `index.json` says: of each split its images and its shards, with size and SHA-256."""
    counts = table["shard"].dropna().value_counts()
    splits: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(map(str, counts.index)):
        sizes = {"bytes": shards[name]["bytes"], "sha256": shards[name]["sha256"]}
        splits.setdefault(name.rpartition("-")[0], []).append(
            {"name": name, "images": int(counts[name]), **sizes}
        )
    return {
        "images": int(counts.sum()),
        "images_per_shard": images_per_shard,
        "splits": {
            split: {"images": sum(entry["images"] for entry in entries), "shards": entries}
            for split, entries in splits.items()
        },
    }
