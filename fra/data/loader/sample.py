"""A fixed sample of images, from a beton or from tar shards: for measures during training."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fra.data import images
from fra.data.loader.shard_index import Shard, shards_of


def split_of(source: Path) -> str:
    """Returns the split of a beton; of a folder of shards "val", or "train" where there is no validation split."""
    if source.suffix == ".beton":
        return source.stem
    splits = json.loads((source / "index.json").read_text(encoding="utf-8"))["splits"]
    return "val" if splits.get("val", {}).get("shards") else "train"


def files_of(source: Path) -> list[Path]:
    """Returns the files that `read_sample` reads: a beton, or the index and shards of a split."""
    if source.suffix == ".beton":
        return [source]
    return [source / "index.json", *(shard.path for shard in shards_of(source, split_of(source)))]


def read_sample(source: Path, exclude: Set[int], count: int) -> list[NDArray[np.uint8]]:
    """Returns at most `count` images, each (H, W, 3), spread evenly over a split; the same ones each time.

    Args:
        source: A beton, or a folder of tar shards (see `split_of`).
        exclude: Indices within the split to leave out (quarantined images).
        count: The largest number of images.
    """
    if source.suffix == ".beton":
        from fra.data.shards.beton_reader import Beton  # imports FFCV and PyTorch

        beton = Beton(source)
        usable = [place for place, index in enumerate(beton.index.tolist()) if index not in exclude]
        return [beton.pixels(place) for place in _spread(usable, count)]
    shards = shards_of(source, split_of(source))
    total = sum(shard.images for shard in shards)
    chosen = set(_spread([index for index in range(total) if index not in exclude], count))
    return [image for shard in shards for image in _of_shard(shard, chosen)]


def _of_shard(shard: Shard, chosen: Set[int]) -> Iterator[NDArray[np.uint8]]:
    if chosen.isdisjoint(range(shard.first, shard.first + shard.images)):
        return
    index = shard.first
    with tarfile.open(shard.path, "r:") as tar:
        for member in tar:
            if member.name.endswith(".json"):
                continue
            if index in chosen:
                stream = tar.extractfile(member)
                assert stream is not None
                yield images.decode(stream.read())
            index += 1


def _spread(items: list[int], count: int) -> list[int]:
    """Returns at most `count` items at equal distances."""
    return items if len(items) <= count else [items[number * len(items) // count] for number in range(count)]
