"""Builds the loader of pre-training: batches of two crops per image, from a beton (FFCV) or tar shards (WebDataset).

Both loaders give the same crops of an image in an epoch (up to the decoder), whatever the number of workers. They
differ in the order of images: FFCV shuffles the whole epoch; WebDataset streams, and shuffles shards and a buffer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fra.data.loader.config import DataConfig
from fra.data.loader.shard_index import train_shards
from fra.data.views.config import ViewsConfig

if TYPE_CHECKING:
    from fra.data.loader.protocol import Loader


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
    """The loader that `config.loader` names, over the training images.

    Args:
        config: How to read.
        views: The distribution of the crops.
        source: What is read: a beton (ffcv), or the folder of a set's tar shards (webdataset).
        exclude: Indices, within the training split, of images to leave out (quarantined ones).
        batch_size: Images per batch and rank.
        seed: Seed of order and crops.
        rank: This process, from 0.
        world_size: Number of processes that share an epoch.

    Raises:
        FileNotFoundError: `source` does not exist.
        ValueError: There are too few images for one batch on each rank.
    """
    if config.loader == "ffcv":
        from fra.data.ffcv import Reader
        from fra.data.loader.ffcv import FFCVPairs

        if not source.is_file():
            raise FileNotFoundError(f"{source}: no such beton: run `dvc repro shard`")
        index = np.setdiff1d(
            np.arange(int(Reader(str(source), {}).num_samples)), np.array(sorted(exclude), dtype=np.int64)
        )
        return FFCVPairs(config, views, source, index, batch_size, seed, rank, world_size)
    from fra.data.loader.webdataset import WebDatasetPairs

    return WebDatasetPairs(config, views, train_shards(source), exclude, batch_size, seed, rank, world_size)
