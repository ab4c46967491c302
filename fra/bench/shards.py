"""Sharding at two sizes and after 1 % new images, beside webdataset's own writer, on the same files in one run."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from fra.bench.synthetic_images import made_up_faces
from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import write
from fra.data.shards.config import ShardConfig

DISTINCT = 2000
"""Different pictures; the others are copies under other names, each read from a file of its own."""
TURNS = 3
"""How often the short parts are read off: the median counts."""


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The largest proportional set size (bytes) of this process and its children, looked at ten times a second."""
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            total = 0
            for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:  # it ended meanwhile
                    continue
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def copies(root: Path, pictures: list[Path], start: int, count: int) -> None:
    """`count` images in folders of a thousand."""
    for number, picture in zip(range(start, start + count), itertools.cycle(pictures), strict=False):
        path = root / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, path)


def shard(root: Path, out: Path) -> float:
    """Seconds from the list of records to tars, manifest and index."""
    records = ingest(DatasetConfig("bench", "folder", str(root)), out / "raw")
    os.sync()  # what others wrote must not be written to the disk on our time
    start = time.perf_counter()
    write.write(records, root, out / "shards", out / "manifest.parquet", ShardConfig(), out / "state")
    return time.perf_counter() - start


def plainly(root: Path, out: Path) -> float:
    """Seconds that webdataset's ShardWriter takes for the same images, as its documentation shows it."""
    import webdataset  # brings torch, which is no part of sharding's memory

    out.mkdir()
    os.sync()
    start = time.perf_counter()
    with webdataset.ShardWriter(f"{out}/%06d.tar", maxcount=1000, verbose=0) as writer:
        for path in sorted(root.rglob("*.jpg")):
            writer.write({"__key__": str(path.relative_to(root).with_suffix("")), "jpg": path.read_bytes()})
    return time.perf_counter() - start


def sharding(images: int = 100_000, few: int = 10_000) -> dict[str, float | int]:
    """Rates in images a second, memory in MiB, and what 1 % new images (three times) cost as a part of the whole.

    The files are in the page cache throughout: they were just written. What a process loads the first time is loaded
    before anything is read off.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder = Path(name)
        made_up_faces(folder / "pictures", DISTINCT)
        pictures = sorted((folder / "pictures").rglob("*.jpg"))
        copies(folder / "few", pictures, 0, few)
        copies(folder / "many", pictures, 0, images)
        shard(folder / "pictures", folder / "out-first")
        seconds_few = median(shard(folder / "few", folder / f"out-{turn}") for turn in range(TURNS))
        with peak_memory() as peak:
            seconds_many = shard(folder / "many", folder / "out-many")
        before = {path.name: path.stat().st_mtime_ns for path in (folder / "out-many/shards").glob("*.tar")}
        more = []
        for turn in range(TURNS):
            copies(folder / "many", pictures, images + turn * (images // 100), images // 100)
            more.append(shard(folder / "many", folder / "out-many"))
        plain = plainly(folder / "few", folder / "plain")
        after = {path.name: path.stat().st_mtime_ns for path in (folder / "out-many/shards").glob("*.tar")}
        return {
            "images": images,
            "images_per_second": images / seconds_many,
            f"images_per_second_of_{few}": few / seconds_few,
            "seconds_per_image_ratio": (seconds_many / images) / (seconds_few / few),
            "webdataset_images_per_second": few / plain,
            "speedup": plain / seconds_few,
            "peak_mib": peak[0] / 2**20,
            "one_percent_new_seconds": median(more),
            "one_percent_new_ratio": median(more) / seconds_many,
            "shards": len(after),
            "shards_touched": sum(before.get(shard) != time for shard, time in after.items()),
        }
