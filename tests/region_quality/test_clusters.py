from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fra.region_quality import clusters
from fra.region_quality.clusters import Pixels

SIZE = 16
COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=np.uint8)


def coloured_images(count: int) -> tuple[list[Pixels], np.ndarray]:
    """Return images whose pixels have one of three random colours, and the number of the colour of each pixel."""
    kind_NHW = np.random.default_rng(0).integers(3, size=(count, SIZE, SIZE))
    return list(COLOURS[kind_NHW]), kind_NHW


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).T) == len(np.unique(b))


def test_clusters_of_colours_are_the_colours() -> None:
    images, kind_NHW = coloured_images(4)
    heat_NKHW = clusters.fit_colours(images, SIZE, 3).heatmaps(images)
    assert heat_NKHW.shape == (4, 3, SIZE, SIZE)
    torch.testing.assert_close(heat_NKHW.sum(1), torch.ones(4, SIZE, SIZE))
    assert same_partition(heat_NKHW.argmax(1).numpy(), kind_NHW)


class ScaledColours:
    """A backbone whose feature vectors are scaled colours; their length varies over the image."""

    image_size = SIZE

    def feature_maps(self, images: list[Pixels]) -> Tensor:
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        strength = torch.linspace(0.5, 5, SIZE).expand(SIZE, SIZE)
        return (pixels - 90) * strength


def test_clusters_of_features_do_not_depend_on_their_length() -> None:
    images, kind_NHW = coloured_images(4)
    heat_NKHW = clusters.fit_features(ScaledColours(), images, 3).heatmaps(images)
    assert same_partition(heat_NKHW.argmax(1).numpy(), kind_NHW)
