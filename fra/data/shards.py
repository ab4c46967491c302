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

import ctypes
import hashlib
import json
import os
import signal
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from fra.data.files import atomic, sha256, write_json, write_parquet
from fra.data.images import ImageError, cut, glance
from fra.data.records import SPLITS

SUFFIX = {"jpeg": "jpg", "ppm": "pgm", "tiff": "tif"}
"""File formats (Pillow's names) whose usual suffix is another word."""
FOUND = ("sha256", "bytes", "width", "height", "mode")
"""What the manifest says of an image's bytes."""
FIRST = ("key", "split", "person", *FOUND, "source", "shard", "index", "error")
AHEAD = 3
"""Shards that wait for each process: enough to keep it busy, few enough to keep memory small."""


@dataclass(frozen=True)
class ShardConfig:
    """How records become shards and betons. `workers` 0 = one a core.

    `beton_mode` is how FFCV keeps pixels: "raw" (exact, large), "jpg" (at `jpeg_quality`), or "smart" (raw where an
    image has fewer than `raw_bytes` bytes of pixels). Sides longer than `max_side` are scaled down in the beton; the
    tar shards keep the file's own bytes. `runner` is who writes the shards: the processes of this machine ("local"),
    or the workers of a Dask scheduler at `dask_address`, which see the same folders.
    """

    images_per_shard: int = 1000
    workers: int = 0
    beton_mode: str = "smart"
    jpeg_quality: int = 95
    raw_bytes: int = 65536
    max_side: int = 512
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
class Job:
    """One shard to write: its name and records (in its order), folders, and the fingerprint to remember it by."""

    name: str
    records: pd.DataFrame
    fingerprint: str
    root: Path
    out: Path
    state: Path


Spread = Callable[[Callable[[Job], int], Sequence[Job]], Iterable[int]]
"""Runs a function on every job, anywhere and in any order, and yields what it returned: images done."""


@dataclass(frozen=True)
class Past:
    """What is known of the last run. `manifest` by key; `shards` by name: fingerprint, sha256, bytes of the tar;
    `refused`: images that could not be decoded, and the row hash they had then."""

    manifest: pd.DataFrame
    shards: dict[str, dict[str, Any]]
    refused: dict[str, str]


# ---- which record belongs where


def order_of(keys: Iterable[str]) -> NDArray[np.uint64]:
    """A number a key, which shuffles them: the first eight bytes of its SHA-256."""
    digests = (hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8] for key in keys)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def plan(records: pd.DataFrame, images_per_shard: int, before: pd.Series) -> pd.DataFrame:
    """The records with the column `shard`, in the order of splits, shards and, within one, a hash of the key.

    `before` maps keys to the shards they were in; they stay there. Others fill up the last shard of their split and
    then new ones.
    """
    order = order_of(records["key"])
    split = pd.Categorical(records["split"], SPLITS).codes
    number = np.full(len(records), -1, dtype=np.int64)
    if len(before):
        parts = records["key"].map(before).astype("string").str.extract(r"^(.*)-(\d{6,})\.tar$")
        stays = (parts[0] == records["split"]).fillna(False).to_numpy(dtype=bool)
        number[stays] = parts[1][stays].astype("int64")
    for code in range(len(SPLITS)):
        new = np.flatnonzero((split == code) & (number < 0))
        new = new[np.argsort(order[new], kind="stable")]
        old = number[(split == code) & (number >= 0)]
        last = int(old.max(initial=0))
        place = last * images_per_shard + min(int((old == last).sum()), images_per_shard)
        number[new] = (place + np.arange(len(new))) // images_per_shard
    rank = np.lexsort((order, number, split))
    names = [f"{SPLITS[split[row]]}-{number[row]:06d}.tar" for row in rank]
    return records.iloc[rank].assign(shard=pd.array(names, dtype="string"))


def row_hashes(records: pd.DataFrame) -> NDArray[np.uint64]:
    """A number a record that changes with anything that the manifest or its shard says of it."""
    plain = records.drop(
        columns=[name for name in ("landmarks", "box", "span", "content") if name in records]
    )
    hashes = pd.util.hash_pandas_object(plain.astype({"key": "str"}), index=False).to_numpy(np.uint64).copy()
    for name in ("landmarks", "box", "span", "content"):
        if name in records and records[name].notna().any():
            parts = (
                b""
                if value is None
                else value
                if isinstance(value, bytes)
                else np.asarray(value, np.float64).tobytes()
                for value in records[name]
            )
            digests = b"".join(hashlib.blake2b(part, digest_size=8).digest() for part in parts)
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + np.frombuffer(digests, dtype=np.uint64)
    return hashes


def fingerprint(hashes: NDArray[np.uint64]) -> str:
    return hashlib.sha256(hashes.tobytes()).hexdigest()


# ---- one shard


def beside(records: pd.DataFrame) -> list[bytes]:
    """What travels beside each image in its shard, as JSON: person, labels, landmarks, as far as they are known."""
    known: list[dict[str, Any]] = [
        {} if pd.isna(person) else {"person": person} for person in records["person"]
    ]
    for name in [column for column in records.columns if column.startswith("label.")]:
        for entry, value in zip(known, records[name].tolist(), strict=True):
            if not pd.isna(value):
                entry.setdefault("labels", {})[name.removeprefix("label.")] = int(value)
    for entry, points in zip(known, records["landmarks"], strict=True):
        if points is not None:
            entry["landmarks"] = [round(float(value), 3) for value in points]
    return [json.dumps(entry, ensure_ascii=False).encode() for entry in known]


def member(name: str, content: bytes) -> bytes:
    """A file in a tar: header, content, padding. Owner, mode and time are fixed: nothing of this machine gets in."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uname, info.gname = len(content), 0o644, 0, "fra", "fra"
    return (
        info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + b"\0" * (-len(content) % 512)
    )


END = b"\0" * 1024
"""What ends a tar."""


def part_of(url: str, start: int, size: int) -> bytes:
    """Some bytes of a local or remote file."""
    import fsspec

    with fsspec.open(url, "rb", cache_type="none") if "://" in url else Path(url).open("rb") as stream:
        stream.seek(start)
        content: bytes = stream.read(size)
    return content


def image_bytes(root: Path, row: dict[str, Any]) -> bytes:
    """The image of a record: its file, its part of the file, or what the set had in a table."""
    content = row["content"]
    if row["span"] is not None:
        content = part_of(row["source"], *(int(number) for number in row["span"]))
    elif content is None:
        content = (root / row["source"]).read_bytes()
    return content if row["box"] is None else cut(content, tuple(int(side) for side in row["box"]))


def write_shard(job: Job) -> int:
    """Writes one shard, and what was found into `state/<shard>.json`; returns the number of records.

    Images that cannot be decoded are left out. A shard without one good image is not written.
    """
    found: dict[str, list[Any]] = {name: [] for name in ("key", *FOUND, "error")}
    columns = {
        name: job.records[name].tolist() if name in job.records else [None] * len(job.records)
        for name in ("key", "source", "box", "span", "content")
    }
    digest, size = hashlib.sha256(), 0
    path = job.out / job.name
    with atomic(path) as partial, partial.open("wb", buffering=1 << 20) as stream:
        for values in zip(*columns.values(), beside(job.records), strict=True):
            row = dict(zip((*columns, "annotation"), values, strict=True))
            content, error, facts = b"", None, None
            try:
                content = image_bytes(job.root, row)
                facts = glance(content)
            except ImageError as refused:
                error = str(refused)
            found["key"].append(row["key"])
            found["sha256"].append(hashlib.sha256(content).hexdigest())
            found["bytes"].append(len(content))
            found["width"].append(facts.width if facts else 0)
            found["height"].append(facts.height if facts else 0)
            found["mode"].append(facts.mode if facts else "")
            found["error"].append(error)
            if facts:
                suffix = SUFFIX.get(facts.format, facts.format)
                both = member(f"{row['key']}.{suffix}", content)
                both += member(f"{row['key']}.json", row["annotation"])
                digest.update(both)
                size += stream.write(both)
        digest.update(END)
        stream.write(END)
    if size == 0:
        path.unlink(missing_ok=True)
    entry = {"fingerprint": job.fingerprint, "sha256": digest.hexdigest(), "bytes": size + len(END)}
    job.state.mkdir(parents=True, exist_ok=True)
    with atomic(job.state / f"{job.name}.json") as partial:
        partial.write_text(json.dumps({**entry, "found": found}))
    return len(job.records)


def die_with_parent() -> None:
    """A worker must not outlive a killed run: it would go on writing into what the next run writes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def processes(workers: int) -> int:
    """How many processes `workers` asks for: 0 = as many as this process may use cores."""
    return workers or len(os.sched_getaffinity(0))


def local(workers: int) -> Spread:
    """Writes shards in processes of this machine."""

    def spread(work: Callable[[Job], int], jobs: Sequence[Job]) -> Iterator[int]:
        count = min(processes(workers), len(jobs))
        if count <= 1:
            yield from map(work, jobs)
            return
        with ProcessPoolExecutor(count, initializer=die_with_parent) as pool:
            waiting = iter(jobs)
            running: set[Future[int]] = {pool.submit(work, job) for job in islice(waiting, AHEAD * count)}
            try:
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {pool.submit(work, job) for job in islice(waiting, len(done))}
                    for future in done:
                        yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return spread


# ---- the whole set


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
    if not manifest.is_file() or said.get("images_per_shard") not in (images_per_shard, None):
        before = pd.DataFrame({name: [] for name in (*FOUND, "shard", "error")})
        before.index = pd.Index([], dtype="string", name="key")
        done = {**done, "shards": {}, "refused": {}}
    else:
        columns = ["key", *FOUND, "shard", "error"]
        before = pd.read_parquet(manifest, columns=columns).set_index("key")
    trusted = index.is_file() and sha256(index) == done["index"]
    shards = {
        name: entry
        for name, entry in done["shards"].items()
        if (out / name).is_file()
        and (out / name).stat().st_size == entry["bytes"]
        and (trusted or sha256(out / name) == entry["sha256"])
    }
    return Past(before, shards, done["refused"])


def just_written(job: Job) -> bool:
    """Whether a run that was interrupted had finished this very shard."""
    try:
        entry = json.loads((job.state / f"{job.name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    if entry["fingerprint"] != job.fingerprint:
        return False
    path = job.out / job.name
    return sha256(path) == entry["sha256"] if path.is_file() else not any(map(bool, entry["found"]["width"]))


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
    named = pd.Series([f"{value:016x}" for value in hashes], index=records["key"])
    known = records["modified"].notna().to_numpy() | (
        records["content"].notna().to_numpy() if "content" in records else False
    )
    errors = dict(past.manifest["error"].dropna())
    refused = {
        key: errors[key] for key, row in past.refused.items() if key in errors and named.get(key) == row
    }
    refused |= broken or {}
    wanted = ~records["key"].isin(list(refused)).to_numpy()
    planned = plan(
        records[wanted].assign(hash=hashes[wanted], known=known[wanted]),
        config.images_per_shard,
        past.manifest["shard"].dropna(),
    )
    jobs: list[Job] = []
    kept: list[Job] = []
    for name, rows in planned.groupby("shard", sort=False):
        mark = fingerprint(rows["hash"].to_numpy(np.uint64))
        same = past.shards.get(str(name), {}).get("fingerprint") == mark and bool(rows["known"].all())
        job = Job(str(name), rows, mark, root, out, state)
        (kept if same else jobs).append(job)
    finished = [job for job in jobs if job.records["known"].all() and just_written(job)]
    out.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    if jobs or len(kept) != len(past.shards):
        (out / "index.json").unlink(missing_ok=True)
    names = {job.name for job in (*jobs, *kept)}
    for stale in out.iterdir():
        if stale.name not in names and stale.name != "index.json":
            stale.unlink()
    left = [job for job in jobs if job not in finished]
    with tqdm(
        total=len(planned),
        initial=sum(len(job.records) for job in (*kept, *finished)),
        unit="image",
        desc="shards",
        mininterval=1,
    ) as progress:
        for done in (spread or local(config.workers))(write_shard, left):
            progress.update(done)
    entries = {job.name: json.loads((state / f"{job.name}.json").read_text(encoding="utf-8")) for job in jobs}
    table = assemble(records, planned, past, kept, entries, refused)
    if not table["shard"].notna().any():
        example = table.iloc[0]
        raise ValueError(
            f"{root}: none of {len(table)} images can be decoded; {example['source']}: {example['error']}"
        )
    # Remembered by the records that stayed: those that were refused are not asked for again.
    good = planned["key"].isin(table.loc[table["shard"].notna(), "key"]).to_numpy()
    marks = {
        str(name): fingerprint(rows["hash"].to_numpy(np.uint64))
        for name, rows in planned[good].groupby("shard", sort=False)
    }
    tars = {**past.shards, **entries}
    shards = {
        name: {"fingerprint": mark, "sha256": tars[name]["sha256"], "bytes": tars[name]["bytes"]}
        for name, mark in marks.items()
    }
    write_parquet(table, manifest)
    write_json(index(table, shards, config.images_per_shard), out / "index.json")
    write_json(
        {
            "index": sha256(out / "index.json"),
            "images_per_shard": config.images_per_shard,
            "shards": shards,
            "refused": {key: named[key] for key in table.loc[table["error"].notna(), "key"]},
        },
        state / "done.json",
    )
    for name in entries:
        (state / f"{name}.json").unlink()
    return table


def assemble(
    records: pd.DataFrame,
    planned: pd.DataFrame,
    past: Past,
    kept: list[Job],
    entries: dict[str, dict[str, Any]],
    refused: Mapping[str, str],
) -> pd.DataFrame:
    """The manifest: records and what was found in their bytes, in shard order, then those that were refused by key;
    `index` counts within a split."""
    old = pd.concat([job.records["key"] for job in kept]) if kept else pd.Series([], dtype="string")
    before = past.manifest.drop(columns=["shard"])
    found = [
        before.loc[before.index.isin([*old, *refused])].reset_index(),
        *(pd.DataFrame(entry["found"]) for entry in entries.values()),
    ]
    facts = pd.concat([part for part in found if len(part)], ignore_index=True)
    listed = pd.concat(
        [planned.drop(columns=["hash", "known"]), records[records["key"].isin(list(refused))]]
    ).drop(columns=["bytes", "modified", "box", "span", "content"], errors="ignore")
    table = listed.merge(facts, on="key", how="left", validate="one_to_one")
    reasons = table["key"].map(refused)
    table["error"] = table["error"].astype("string").where(reasons.isna(), reasons.astype("string"))
    bad = table["error"].notna()
    table.loc[bad, ["width", "height"]] = 0
    table.loc[bad, "mode"] = ""
    table["shard"] = table["shard"].astype("string").mask(bad)
    table = pd.concat([table[~bad], table[bad].sort_values("key")], ignore_index=True)
    sharded = table["shard"].notna()
    table["index"] = (
        (sharded.groupby(table["split"], sort=False).cumsum() - 1).where(sharded, -1).astype("int64")
    )
    table = table.astype(
        {"bytes": "int64", "width": "int64", "height": "int64", "mode": "string", "sha256": "string"}
    )
    labels = [name for name in table.columns if name.startswith("label.")]
    return table[[*FIRST, *labels, "landmarks"]]


def index(table: pd.DataFrame, shards: dict[str, dict[str, Any]], images_per_shard: int) -> dict[str, Any]:
    """What `index.json` says: of each split its images and its shards, with size and SHA-256."""
    sharded = table[table["shard"].notna()]
    counts = sharded.groupby(["split", "shard"], sort=True).size()
    return {
        "images": len(sharded),
        "images_per_shard": images_per_shard,
        "splits": {
            str(split): {
                "images": int(names.sum()),
                "shards": [
                    {
                        "name": str(name),
                        "images": int(count),
                        "bytes": shards[str(name)]["bytes"],
                        "sha256": shards[str(name)]["sha256"],
                    }
                    for (_, name), count in names.items()
                ],
            }
            for split, names in counts.groupby(level=0, sort=True)
        },
    }
