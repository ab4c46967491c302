"""Label-free measures of the backbone in training, on images that are the same each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fra.data import images
from fra.data.views.crops import crop_box
from fra.data.views.rng import epoch_key
from fra.data.views.views import Crops, Views, normalize
from fra.train.monitoring.features import BATCH_SIZE, pooled_features
from fra.train.monitoring.representation import measures

IMAGES = 300
"""Number of images at most: enough for the measures to tell trainings apart, few enough to cost next to nothing."""


@dataclass(frozen=True)
class Measures:
    """Images on which a backbone is measured, and how their two views are made.

    Attributes:
        read_images: Returns the images (H, W, 3), uint8, of any size; called for the first measures, on rank 0 only.
        views: The views of the training; those of its epoch 0 are used each time.
        size: Side in pixels that the backbone gets.
        split: The split that the images are from, for the report.
    """

    read_images: Callable[[], Sequence[NDArray[np.uint8]]]
    views: Views
    size: int
    split: str

    def __call__(self, backbone: nn.Module, device: torch.device) -> dict[str, float]:
        """Returns the measures of the backbone by name, see `fra.train.monitoring.representation`.

        Weights, batch statistics, mode and random state stay unchanged. Called on one rank only.
        """
        config = self.views.config

        def prepare(batch: Tensor | NDArray[np.uint8]) -> Tensor:
            if isinstance(batch, Tensor):
                return batch
            pixels = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float().div_(255)
            return normalize(pixels, config.mean, config.std)

        def inputs() -> Iterator[Tensor | NDArray[np.uint8]]:
            for first in range(0, len(self.images), BATCH_SIZE):
                part = self.images[first : first + BATCH_SIZE]
                yield np.stack([images.resize(image, self.size) for image in part])
                yield from self.views(self._crops(first, part), 0, device)

        found = pooled_features(backbone, inputs(), prepare, device)
        whole, first, second = (torch.cat(found[start::3]).double().cpu().numpy() for start in range(3))
        return measures(whole, first, second)

    @cached_property
    def images(self) -> Sequence[NDArray[np.uint8]]:
        """The images, read once."""
        return self.read_images()

    def _crops(self, first: int, part: Sequence[NDArray[np.uint8]]) -> Crops:
        """Returns two crops of each image, drawn as the loaders draw them."""
        config, key = self.views.config, epoch_key(self.views.seed, 0)
        crops = np.empty((2, len(part), self.size, self.size, 3), np.uint8)
        for number, image in enumerate(part):
            height, width = image.shape[:2]
            for view in range(2):
                top, left, h, w = crop_box(
                    key, first + number, view, height, width, config.crop_scale, config.crop_ratio
                )
                crops[view, number] = images.resize(image[top : top + h, left : left + w], self.size)
        index_B = torch.arange(first, first + len(part))
        return Crops(torch.from_numpy(crops[0]), torch.from_numpy(crops[1]), index_B)
