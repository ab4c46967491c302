"""Peer: webdataset's own writer, in one process or several that write a share of the shards each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import webdataset

from fra.bench.measure import Work
from fra.bench.peers.serve import serve

PER_SHARD = 1000


def write(root: Path, out: Path, shard: int, paths: list[Path]) -> int:
    """Writes some of the images below `root` as one shard; returns their number."""
    with webdataset.ShardWriter(f"{out}/{shard:06d}-%d.tar", maxcount=PER_SHARD, verbose=0) as writer:
        for path in paths:
            key = str(path.relative_to(root).with_suffix(""))
            writer.write({"__key__": key, "jpg": path.read_bytes()})
    return len(paths)


def prepare(root: str, processes: int) -> Work:
    """Returns the writing of all JPEG files below `root`; it yields the number of images of each shard."""

    def run() -> Iterator[int]:
        paths = sorted(Path(root).rglob("*.jpg"))
        shards = [paths[start : start + PER_SHARD] for start in range(0, len(paths), PER_SHARD)]
        with tempfile.TemporaryDirectory(dir=Path(root).parent) as out:
            one = partial(write, Path(root), Path(out))
            if processes == 1:
                yield from map(one, range(len(shards)), shards)
                return
            with ProcessPoolExecutor(processes) as executor:
                yield from executor.map(one, range(len(shards)), shards)

    return run


if __name__ == "__main__":
    serve(prepare)
