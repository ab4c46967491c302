"""Statistics of the first batch that a network will see, for the validation before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views

IMAGES = 64
"""Largest number of images in the batch."""


def batch_statistics(
    config: DataConfig, views: ViewsConfig, shards: Path, exclude: frozenset[int], images: int, seed: int
) -> pd.DataFrame:
    """Statistics of both views of up to `IMAGES` training images, normalised as for the network.

    The images are read from the tar shards: both loaders give the same crops, and this one compiles nothing.

    Args:
        config: How to read.
        views: The distribution of the views.
        shards: The folder of the tar shards.
        exclude: Indices of images to leave out.
        images: Number of images in the training split.
        seed: Seed of order and views.

    Returns:
        One row per image and view: index (within the split), view (1 or 2), finite, low and high (smallest and largest
        value before normalisation, which is between 0 and 1), mean, deviation (of the normalised values), difference
        (mean absolute difference of the two views).

    Raises:
        ValueError: There is no image.
    """
    few = replace(config, loader="webdataset", workers=1, batches_ahead=1, shuffle_buffer=IMAGES)
    batches = build_loader(
        few, views, source=shards, exclude=exclude, batch_size=min(IMAGES, images - len(exclude)), seed=seed
    )
    crops = next(batches.epoch(0))
    made = Views(views, seed)(crops, 0, torch.device("cpu"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (views.mean, views.std))
    difference_B = (made[0] - made[1]).abs().mean(dim=(1, 2, 3))
    rows = []
    for number, view_B3HW in enumerate(made, start=1):
        units_B3HW = view_B3HW * std + mean
        rows.append(
            pd.DataFrame(
                {
                    "index": crops.index_B.numpy(),
                    "view": number,
                    "finite": torch.isfinite(view_B3HW).flatten(1).all(dim=1).numpy(),
                    "low": units_B3HW.flatten(1).amin(dim=1).numpy(),
                    "high": units_B3HW.flatten(1).amax(dim=1).numpy(),
                    "mean": view_B3HW.flatten(1).mean(dim=1).numpy(),
                    "deviation": view_B3HW.flatten(1).std(dim=1).numpy(),
                    "difference": difference_B.numpy(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)
