"""Batches of two crops an image, from betons (FFCV) or from tar shards (WebDataset).

Both give the same crops of an image in an epoch, up to decoding, whatever the number of workers. Their order of
images differs: FFCV shuffles the whole epoch; WebDataset streams, and shuffles shards and a buffer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fra.data.ffcv import (
    Reader,
)
from fra.data.loader.config import DataConfig, Loader
from fra.data.loader.ffcv import FFCVPairs
from fra.data.loader.webdataset import WebDatasetPairs, train_shards
from fra.data.views.views import ViewsConfig


def build_loader(
    config: DataConfig,
    views: ViewsConfig,
    *,
    source: Path,
    exclude: frozenset[int],
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """The loader that `config.loader` names, over the training images less those of index `exclude`.

    `source` is what it reads: a beton (ffcv) or the folder of a set's tar shards (webdataset).

    Raises:
        FileNotFoundError: `source` is not there.
        ValueError: fewer images than make one batch on each rank.
    """
    if config.loader == "ffcv":
        if not source.is_file():
            raise FileNotFoundError(f"{source}: no such beton: run `dvc repro shard`")
        index = np.setdiff1d(
            np.arange(int(Reader(str(source), {}).num_samples)), np.array(sorted(exclude), dtype=np.int64)
        )
        return FFCVPairs(config, views, source, index, batch_size, seed, rank, world_size)
    return WebDatasetPairs(config, views, train_shards(source), exclude, batch_size, seed, rank, world_size)
