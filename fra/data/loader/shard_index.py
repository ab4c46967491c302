"""The tar shards of a split, as the index of a set lists them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Shard(NamedTuple):
    """A tar shard: its path, number of images, and the index of its first image within the split."""

    path: Path
    images: int
    first: int


def train_shards(folder: Path) -> list[Shard]:
    """The shards of the training split, see `shards_of`."""
    return shards_of(folder, "train")


def shards_of(folder: Path, split: str) -> list[Shard]:
    """The shards of a split, as listed in `index.json`.

    Raises:
        FileNotFoundError: There is no `index.json`, so the shards are incomplete.
        ValueError: It is not an index of shards.
    """
    index = folder / "index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{index}: no such file, so the shards are incomplete: run `dvc repro shard`")
    shards, first = [], 0
    try:
        for entry in json.loads(index.read_text(encoding="utf-8"))["splits"][split]["shards"]:
            shards.append(Shard(folder / str(entry["name"]), int(entry["images"]), first))
            first += shards[-1].images
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{index}: not an index of shards ({error!r}): run `dvc repro -f shard`") from None
    return shards
