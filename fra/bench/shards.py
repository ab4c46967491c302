"""Sharding compared with webdataset's own writer; at two sizes, and after 1 % new images."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from fra.bench.inputs import list_images, write_images, write_shards
from fra.bench.measure import Measurement, alternate, compared, comparison, measure, seconds_of
from fra.bench.peers.process import Peer, running
from fra.data.shards.config import ShardConfig

DISTINCT = 2000
"""Number of different images; the others are copies in files of their own."""
REPEATS = 3
"""How often the short parts are measured; the median counts."""


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yields a list whose only entry is the largest memory in bytes of this process and its children so far.

    Memory is the proportional set size, read ten times a second.
    """
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.1):
            total = 0
            for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:  # the process has ended meanwhile
                    continue
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def copy_images(root: Path, images: list[Path], start: int, count: int) -> None:
    """Copies images in turn to the files `start` to `start` + `count` - 1 of `root`, in folders of a thousand."""
    for number, image in zip(range(start, start + count), itertools.cycle(images), strict=False):
        path = root / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, path)


def seconds_of_sharding(root: Path, out: Path) -> float:
    """Writes the images below `root` as shards into `out`; returns the seconds, without those of listing the images."""
    records = list_images(root, out)
    os.sync()  # pending writes of earlier parts must not count
    return seconds_of(lambda: write_shards(records, root, out, ShardConfig()))


def seconds_of_webdataset(root: Path) -> float:
    """Returns the seconds of webdataset's ShardWriter in one process on the same images."""
    from fra.bench.peers.webdataset import (
        prepare,
    )  # imports torch, which must not count as memory of sharding

    os.sync()
    return seconds_of(lambda: sum(prepare(str(root), 1)()))


def compare_with_peer(peer: Peer, images: int, processes: int, rounds: int = 3) -> dict[str, Any]:
    """Compares our sharding with a peer's in alternating rounds, each into a new folder.

    Args:
        peer: The peer.
        images: Number of synthetic images.
        processes: Processes of the peer; ours takes one per core.
        rounds: Number of rounds.

    Returns:
        `baseline` (the peer) and `ours` in images/s, `ratio` and `cpu_ratio`.

    Raises:
        RuntimeError: The peer cannot be installed or fails.
    """
    outputs = itertools.count()
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder = Path(name)
        write_images(folder / "distinct", min(images, DISTINCT))
        copy_images(folder / "images", sorted((folder / "distinct").rglob("*.jpg")), 0, images)
        records = list_images(folder / "images", folder)

        def ours() -> Iterator[int]:
            out = folder / f"out-{next(outputs)}"
            write_shards(records, folder / "images", out, ShardConfig())
            yield images

        def synchronised(call: Callable[[], Measurement]) -> Measurement:
            os.sync()  # pending writes of earlier parts must not count
            return call()

        measure(ours)  # loads all code
        with running(peer, {"root": str(folder / "images"), "processes": processes}) as baseline:
            contenders = {"baseline": baseline, "ours": partial(measure, ours)}
            taken = alternate(
                {name: partial(synchronised, call) for name, call in contenders.items()}, rounds
            )
    return {
        **compared(taken),
        "peer": peer.name,
        "images": images,
        "processes": processes,
        "rounds": rounds,
    }


def compare_sharding(images: int = 100_000, few: int = 10_000) -> dict[str, Any]:
    """Compares our sharding with webdataset's writer on `few` images, and measures it on `images`.

    The files are in the page cache throughout, since they were just written; one sharding before the first
    measurement loads all code.

    Returns:
        `baseline` (webdataset) and `ours` in images/s on `few` images, and `ratio`. Of our sharding of `images`: the
        rate, the time per image divided by that on `few`, and the peak memory in MiB. Of sharding again after 1 % new
        images: the median seconds, also as a share of the first sharding, and how many of all shards were written.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder = Path(name)
        write_images(folder / "distinct", DISTINCT)
        distinct = sorted((folder / "distinct").rglob("*.jpg"))
        copy_images(folder / "few", distinct, 0, few)
        copy_images(folder / "many", distinct, 0, images)
        seconds_of_sharding(folder / "distinct", folder / "out-first")
        seconds_few = median(
            seconds_of_sharding(folder / "few", folder / f"out-{repeat}") for repeat in range(REPEATS)
        )
        with peak_memory() as peak:
            seconds_many = seconds_of_sharding(folder / "many", folder / "out-many")
        before = _modification_times(folder / "out-many" / "shards")
        seconds_new = []
        for repeat in range(REPEATS):
            copy_images(folder / "many", distinct, images + repeat * (images // 100), images // 100)
            seconds_new.append(seconds_of_sharding(folder / "many", folder / "out-many"))
        seconds_webdataset = seconds_of_webdataset(folder / "few")
        after = _modification_times(folder / "out-many" / "shards")
    return {
        **comparison(few / seconds_webdataset, few / seconds_few),
        "images_compared": few,
        "images": images,
        "images_per_second": images / seconds_many,
        "seconds_per_image_ratio": (seconds_many / images) / (seconds_few / few),
        "peak_mib": peak[0] / 2**20,
        "one_percent_new_seconds": median(seconds_new),
        "one_percent_new_ratio": median(seconds_new) / seconds_many,
        "shards": len(after),
        "shards_written": sum(before.get(shard) != time for shard, time in after.items()),
    }


def _modification_times(shards: Path) -> dict[str, int]:
    """Returns the modification time in nanoseconds of each shard."""
    return {path.name: path.stat().st_mtime_ns for path in shards.glob("*.tar")}
