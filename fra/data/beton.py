"""FFCV betons: a split's pixels in one memory-mapped file, in the order of the manifest's `index`."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter
from numpy.typing import NDArray

from fra.data.files import atomic
from fra.data.images import ImageError, decode, members
from fra.data.shards import ShardConfig


class Split:
    """The images of one split as FFCV's writer wants them: `split[i]` → (pixels (H, W, 3), i).

    It is asked in another process: an image that turns out not to be whole is named in the file `broken` (a line of
    JSON: key and reason), and a black pixel stands for it.
    """

    def __init__(self, rows: pd.DataFrame, shards: Path, broken: Path) -> None:
        self.keys, self.shard_names = list(map(str, rows["key"])), list(map(str, rows["shard"]))
        self.wanted = set(self.keys)
        self.shards = shards
        self.broken = broken
        self.open: tuple[str, dict[str, bytes]] = ("", {})

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, place: int) -> tuple[NDArray[np.uint8], int]:
        shard, key = self.shard_names[place], self.keys[place]
        if self.open[0] != shard:  # rows come in shard order: one shard in memory at a time
            self.open = (shard, dict(members(self.shards / shard, self.wanted)))
        try:
            return decode(self.open[1][key]), place
        except ImageError as error:
            with self.broken.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([key, str(error)]) + "\n")
            return np.zeros((1, 1, 3), dtype=np.uint8), place


def image_field(config: ShardConfig) -> Any:
    """How FFCV keeps the pixels."""
    return RGBImageField(
        write_mode=config.beton_mode,
        max_resolution=config.max_side,
        smart_threshold=config.raw_bytes,
        jpeg_quality=config.jpeg_quality,
    )


def write(manifest: pd.DataFrame, shards: Path, out: Path, config: ShardConfig) -> dict[str, str]:
    """Writes `out/<split>.beton` for every split of the manifest; fields `image` and `index`.

    Returns the images that could not be decoded (key → why). If there are any, the betons are not to be used: take
    the images out of the shards, and write again.

    One writing process a beton: with more of them FFCV lays out pages in the order they happen to fill, and the
    bytes would differ from run to run.
    """
    broken: dict[str, str] = {}
    for split, rows in manifest[manifest["shard"].notna()].groupby("split", sort=True):
        path = out / f"{split}.beton"
        found = out / f".{split}.broken"
        found.unlink(missing_ok=True)
        with atomic(path) as partial, contextlib.redirect_stderr(io.StringIO()):  # its bar has no name
            writer = DatasetWriter(
                str(partial), {"image": image_field(config), "index": IntField()}, num_workers=1
            )
            writer.from_indexed_dataset(Split(rows.sort_values("index"), shards, found))
        if found.is_file():
            broken |= dict(json.loads(line) for line in found.read_text(encoding="utf-8").splitlines())
            found.unlink()
    return broken
