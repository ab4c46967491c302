"""Baselines of region quality: k-means of colours and of backbone features as masks.

They have a method `heatmaps` as a trained encoder has, so `fra.region_quality.evaluate` computes the same metrics. The
clusters are fitted to the evaluated images, which is an advantage for the baselines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fra.data.images import resize

Pixels = NDArray[np.uint8]


class Backbone(Protocol):
    """A model with feature maps, such as `fra.load` returns."""

    image_size: int

    def feature_maps(self, images: list[Pixels]) -> Tensor:
        """Return the feature maps of images, (N, C, h, w)."""


@dataclass(frozen=True)
class Clusters:
    """Masks from K clusters of local vectors, on the CPU.

    Attributes:
        image_size: Side of the input images in pixels.
        vectors: Images → vectors (N, C, h, w).
        centre_KC: Centres of the clusters.
        variance: Variance within a cluster.
    """

    image_size: int
    vectors: Callable[[list[Pixels]], Tensor]
    centre_KC: Tensor
    variance: float

    def heatmaps(self, images: list[Pixels]) -> Tensor:
        """Return the probability of each cluster at each position, (N, K, h, w).

        Clusters are modelled as Gaussians of equal weight and equal, isotropic variance.
        """
        vector_NCHW = self.vectors(images)
        offset_NKCHW = vector_NCHW[:, None] - self.centre_KC[None, :, :, None, None]
        return (-0.5 * offset_NKCHW.square().sum(dim=2) / self.variance).softmax(dim=1)


def fit_colours(images: list[Pixels], image_size: int, count: int, seed: int = 0) -> Clusters:
    """Fit `count` clusters to the colours of pixels; images are resized to `image_size` first."""

    def vectors(images: list[Pixels]) -> Tensor:
        pixels_NHW3 = np.stack([resize(image, image_size) for image in images])
        return torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2).float() / 255

    return _fit(vectors, images, image_size, count, seed)


def fit_features(model: Backbone, images: list[Pixels], count: int, seed: int = 0) -> Clusters:
    """Fit `count` clusters to a backbone's feature vectors, with their mean subtracted and scaled to length 1."""
    mean_C11 = model.feature_maps(images).cpu().mean(dim=(0, 2, 3))[:, None, None]

    def vectors(images: list[Pixels]) -> Tensor:
        return functional.normalize(model.feature_maps(images).cpu() - mean_C11, dim=1)

    return _fit(vectors, images, model.image_size, count, seed)


def _fit(
    vectors: Callable[[list[Pixels]], Tensor], images: list[Pixels], image_size: int, count: int, seed: int
) -> Clusters:
    from sklearn.cluster import KMeans  # the import takes a second

    vector_PC = vectors(images).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    kmeans = KMeans(count, n_init=3, random_state=seed).fit(vector_PC)
    centre_KC = torch.from_numpy(kmeans.cluster_centers_).float()
    variance = max(kmeans.inertia_ / vector_PC.size, 1e-12)
    return Clusters(image_size, vectors, centre_KC, variance)
