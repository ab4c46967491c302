"""Baselines of region quality: k-means of colours and of backbone features as masks.

Both have `heatmaps` like a trained encoder, so that `fra.region_quality.evaluate` measures them in the same way. The
clusters are fitted to the evaluated images, which is to their advantage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from fra.data.images import resize

Pixels = NDArray[np.uint8]


class Backbone(Protocol):
    """What `fra.load` gives."""

    image_size: int

    def feature_maps(self, images: list[Pixels]) -> Tensor:
        """(N, C, h, w)."""


@dataclass(frozen=True)
class Clusters:
    """Masks that are the clusters of local vectors, `see(images)` (N, C, h, w), around `centre_KC`."""

    image_size: int
    see: Callable[[list[Pixels]], Tensor]
    centre_KC: Tensor
    variance: float

    def heatmaps(self, images: list[Pixels]) -> Tensor:
        """How likely each place belongs to each cluster, taken as round and of one variance: (N, K, h, w)."""
        vector_NCHW = self.see(images)
        offset_NKCHW = vector_NCHW[:, None] - self.centre_KC[None, :, :, None, None]
        return (-0.5 * offset_NKCHW.square().sum(dim=2) / self.variance).softmax(dim=1)


def of_colours(images: list[Pixels], image_size: int, count: int, seed: int = 0) -> Clusters:
    """`count` clusters of the colours of single pixels."""

    def see(images: list[Pixels]) -> Tensor:
        pixels_NHW3 = np.stack([resize(image, image_size) for image in images])
        return torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2).float() / 255

    return _fit(see, images, image_size, count, seed)


def of_features(model: Backbone, images: list[Pixels], count: int, seed: int = 0) -> Clusters:
    """`count` clusters of a backbone's feature vectors, less their mean and scaled to length 1."""
    mean_C11 = model.feature_maps(images).mean(dim=(0, 2, 3))[:, None, None]

    def see(images: list[Pixels]) -> Tensor:
        return functional.normalize(model.feature_maps(images) - mean_C11, dim=1)

    return _fit(see, images, model.image_size, count, seed)


def _fit(
    see: Callable[[list[Pixels]], Tensor], images: list[Pixels], image_size: int, count: int, seed: int
) -> Clusters:
    vector_PC = see(images).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    found = KMeans(count, n_init=3, random_state=seed).fit(vector_PC)
    centre_KC = torch.from_numpy(found.cluster_centers_).float()
    variance = max(found.inertia_ / vector_PC.size, 1e-12)
    return Clusters(image_size, see, centre_KC, variance)
