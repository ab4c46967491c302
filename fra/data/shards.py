"""WebDataset tar shards and the manifest: the versioned truth of a data set.

A split is cut into shards of `images_per_shard` records in a fixed, shuffled order; each shard is written by one
process from its records alone, so shards can be made anywhere, in any order, and always have the same bytes.
`index.json` is written last: a folder without it is not a finished set.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import webdataset
from tqdm import tqdm

from fra.data.datasets import SPLITS
from fra.data.files import atomic, sha256, write_json, write_parquet
from fra.data.images import ImageError, inspect

SUFFIX = {"jpeg": "jpg", "ppm": "pgm", "tiff": "tif"}
"""File formats (Pillow's names) whose usual suffix is another word."""


@dataclass(frozen=True)
class ShardConfig:
    """How records become shards and betons. `workers` 0 = one a core.

    `beton_mode` is how FFCV keeps pixels: "raw" (exact, large), "jpg" (at `jpeg_quality`), or "smart" (raw where an
    image has fewer than `raw_bytes` bytes of pixels). Sides longer than `max_side` are scaled down in the beton; the
    tar shards keep the file's own bytes.
    """

    images_per_shard: int = 1000
    workers: int = 0
    beton_mode: str = "smart"
    jpeg_quality: int = 95
    raw_bytes: int = 65536
    max_side: int = 512

    def __post_init__(self) -> None:
        if self.images_per_shard < 1:
            raise ValueError(f"shard.images_per_shard is {self.images_per_shard}: must be at least 1")
        if self.beton_mode not in ("raw", "jpg", "smart"):
            raise ValueError(f"shard.beton_mode is {self.beton_mode!r}: choose raw, jpg or smart")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"shard.jpeg_quality is {self.jpeg_quality}: must be 1 to 100")


@dataclass(frozen=True)
class Plan:
    """One shard to write: its file name, and its rows of the records table."""

    name: str
    records: pd.DataFrame


def plan(records: pd.DataFrame, images_per_shard: int) -> list[Plan]:
    """Cuts each split into shards; within a split records are ordered by a hash of their key, which shuffles them."""
    order = records["key"].map(
        lambda key: hashlib.sha256(str(key).encode("utf-8", "surrogateescape")).digest()
    )
    shuffled = records.assign(order=order).sort_values(["split", "order"]).drop(columns="order")
    plans = []
    for split in SPLITS:
        rows = shuffled[shuffled["split"] == split]
        for number, start in enumerate(range(0, len(rows), images_per_shard)):
            plans.append(Plan(f"{split}-{number:06d}.tar", rows.iloc[start : start + images_per_shard]))
    return plans


def annotation(row: Any) -> dict[str, Any]:
    """What travels beside an image in its shard: person, labels, landmarks, as far as they are known."""
    known: dict[str, Any] = {}
    if pd.notna(row["person"]):
        known["person"] = row["person"]
    labels = {
        name.removeprefix("label."): int(value)
        for name, value in row.items()
        if name.startswith("label.") and pd.notna(value)
    }
    if labels:
        known["labels"] = labels
    if row["landmarks"] is not None:
        known["landmarks"] = [round(float(value), 3) for value in row["landmarks"]]
    return known


def write_shard(shard: Plan, root: Path, out: Path) -> list[dict[str, Any]]:
    """Writes one shard and returns what the manifest says of its records; images that cannot be decoded are left out.

    Bytes depend on the records and their files alone: fixed owner, mode and times.
    """
    rows = []
    # a fixed owner, mode and time: nothing of this machine or user gets into the shard
    with (
        atomic(out / shard.name) as partial,
        partial.open("wb") as stream,
        webdataset.TarWriter(stream, user="fra", group="fra", mode=0o644, mtime=0) as tar,
    ):
        for row in shard.records.to_dict("records"):
            content = (root / row["source"]).read_bytes()
            result = {
                "key": row["key"],
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "width": 0,
                "height": 0,
                "mode": "",
                "shard": None,
                "error": None,
            }
            try:
                facts = inspect(content)
            except ImageError as error:
                result["error"] = str(error)
            else:
                result |= {"width": facts.width, "height": facts.height, "mode": facts.mode}
                result["shard"] = shard.name
                suffix = SUFFIX.get(facts.format, facts.format)
                tar.write({"__key__": row["key"], suffix: content, "json": annotation(row)})
            rows.append(result)
    return rows


def processes(workers: int) -> int:
    """How many processes `workers` asks for: 0 = as many as this process may use cores."""
    return workers or len(os.sched_getaffinity(0))


def write_all(plans: list[Plan], root: Path, out: Path, workers: int) -> Iterator[list[dict[str, Any]]]:
    """Writes the shards on all cores of this machine; yields the manifest rows of each as it is done."""
    with ProcessPoolExecutor(max_workers=min(processes(workers), len(plans))) as pool:
        futures = [pool.submit(write_shard, shard, root, out) for shard in plans]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write(records: pd.DataFrame, root: Path, out: Path, manifest: Path, config: ShardConfig) -> pd.DataFrame:
    """Records → tar shards in `out`, `out/index.json` and the manifest (columns: see `docs/data.md`).

    Raises:
        FileNotFoundError: an image that was listed is gone.
        ValueError: no image could be decoded.
    """
    plans = plan(records, config.images_per_shard)
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    wanted = {shard.name for shard in plans}
    for stale in out.iterdir():
        if stale.name not in wanted:
            stale.unlink()
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(records), unit="image", desc="shards", mininterval=1) as progress:
        for done in write_all(plans, root, out, config.workers):
            rows += done
            progress.update(len(done))
    table = assemble(plans, rows)
    if not table["shard"].notna().any():
        example = table.iloc[0]
        raise ValueError(
            f"{root}: none of {len(table)} images can be decoded; {example['source']}: {example['error']}"
        )
    write_parquet(table, manifest)
    write_json(index(table, out), out / "index.json")
    return table


def assemble(plans: list[Plan], rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The manifest: records and what was found in their bytes, in shard order; `index` counts within a split."""
    listed = pd.concat([shard.records for shard in plans], ignore_index=True).drop(
        columns=["bytes", "modified"]
    )
    found = pd.DataFrame(rows).astype({"shard": "string", "error": "string", "mode": "string"})
    table = listed.merge(found, on="key", how="left", validate="one_to_one")
    sharded = table["shard"].notna()
    table["index"] = (
        (sharded.groupby(table["split"], sort=False).cumsum() - 1).where(sharded, -1).astype("int64")
    )
    first = [
        "key",
        "split",
        "person",
        "sha256",
        "bytes",
        "width",
        "height",
        "mode",
        "source",
        "shard",
        "index",
        "error",
    ]
    labels = [name for name in table.columns if name.startswith("label.")]
    return table[[*first, *labels, "landmarks"]]


def index(table: pd.DataFrame, out: Path) -> dict[str, Any]:
    """What `index.json` says: of each split its images and its shards, with size and SHA-256."""
    sharded = table[table["shard"].notna()]
    return {
        "images": len(sharded),
        "splits": {
            str(split): {
                "images": len(rows),
                "shards": [
                    {
                        "name": str(name),
                        "images": len(members),
                        "bytes": (out / str(name)).stat().st_size,
                        "sha256": sha256(out / str(name)),
                    }
                    for name, members in rows.groupby("shard", sort=True)
                ],
            }
            for split, rows in sharded.groupby("split", sort=True)
        },
    }
