"""Writes FFCV betons: the pixels of a split in one memory-mapped file, in the order of the manifest's `index`."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data.ffcv import DatasetWriter, IntField, MemoryAllocator, RGBImageField, handle_sample
from fra.data.images import ImageError, decode, members
from fra.data.shards.config import ShardConfig
from fra.files import atomic


class Split:
    """The images of one split as FFCV's writer reads them: `split[i]` is (pixels (H, W, 3), i).

    An image that cannot be decoded is recorded in `broken` (key → reason) and replaced by one black pixel.
    """

    def __init__(self, rows: pd.DataFrame, shards: Path) -> None:
        self.keys, self.shard_names = list(map(str, rows["key"])), list(map(str, rows["shard"]))
        self.wanted = set(self.keys)
        self.shards = shards
        self.broken: dict[str, str] = {}
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
            self.broken[key] = str(error)
            return np.zeros((1, 1, 3), dtype=np.uint8), place


def image_field(config: ShardConfig) -> Any:
    """The FFCV field that stores the pixels."""
    return RGBImageField(
        write_mode=config.beton_mode,
        max_resolution=config.max_side,
        smart_threshold=config.smart_threshold,
        jpeg_quality=config.jpeg_quality,
    )


def write(manifest: pd.DataFrame, shards: Path, out: Path, config: ShardConfig) -> dict[str, str]:
    """Writes `out/<split>.beton` for every split of the manifest, with the fields `image` and `index`.

    Returns:
        The images that could not be decoded (key → reason). If there are any, the betons must not be used: remove
        the images from the shards (`write(…, broken=…)`) and write the betons again.
    """
    broken: dict[str, str] = {}
    for split, rows in manifest[manifest["shard"].notna()].groupby("split", sort=True):
        images = Split(rows.sort_values("index"), shards)
        with atomic(out / f"{split}.beton") as partial:
            write_split(images, partial, image_field(config))
        broken |= images.broken
    return broken


def write_split(images: Split, path: Path, field: RGBImageField) -> None:
    """Writes one beton like FFCV's `from_indexed_dataset`, but in this process instead of a worker.

    FFCV would wait forever for a worker that died, for instance of a full disk; and several workers would write pages
    in an order that differs from run to run, and with it the bytes.

    Raises:
        OSError: A page was not written in full.
    """
    writer = DatasetWriter(str(path), {"image": field, "index": IntField()})
    writer.num_samples = len(images)
    writer.prepare()
    writer.metadata_sm.unlink()  # shared memory for FFCV's own workers, not used here
    metadata = np.zeros(len(images), writer.metadata_type)
    pages = MemoryAllocator(writer.fname, writer.data_region_start, writer.page_size)
    with pages:
        for place in range(len(images)):
            handle_sample(images[place], place, metadata.dtype.names, metadata, pages, writer.fields)
    writer.metadata_sm = SimpleNamespace(buf=metadata.tobytes())
    writer.finalize(pages.allocations)
    if writer.header["alloc_table_ptr"] % writer.page_size:  # the table follows whole pages
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
