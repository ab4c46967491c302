"""The kNN probe: how well nearest neighbours predict labels from the features of the backbone in training."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fra.data import images
from fra.data.views.config import ViewsConfig
from fra.data.views.views import normalize
from fra.train.config import ProbeConfig
from fra.train.monitoring.features import BATCH_SIZE, pooled_features
from fra.validation.verdict import read_usable_rows

SEED = 0
"""Seed of the choice of images where there are more than the limit: the same ones in every run."""
TEMPERATURE = 0.07
"""Temperature of the neighbours' votes (Wu et al. 2018, "Unsupervised feature learning via non-parametric instance
discrimination", arXiv 1805.01978)."""


@dataclass(frozen=True)
class Probe:
    """Labelled faces on which a backbone is scored.

    Attributes:
        every: Number of epochs between two scores.
        neighbours: Number of neighbours that vote.
        read_pixels: Returns the pixels (N, H, W, 3), uint8; called for the first score, on rank 0 only.
        class_NL: Class of each image and label, (N, L); −1 where unknown.
        person_N: Number of the person in each image, (N,).
        views: Mean and standard deviation of the normalisation.
    """

    every: int
    neighbours: int
    read_pixels: Callable[[], NDArray[np.uint8]]
    class_NL: NDArray[np.int64]
    person_N: NDArray[np.int64]
    views: ViewsConfig

    def __call__(self, backbone: nn.Module, device: torch.device) -> float:
        """Returns the mean over the labels of `knn_accuracy` on the backbone's mean-pooled features.

        The backbone runs on whole images in eval mode. Weights, batch statistics, mode and random state stay unchanged.
        Called on one rank only.
        """
        parts = pooled_features(
            backbone, range(0, len(self.pixels_NHW3), BATCH_SIZE), partial(self._batch, device=device), device
        )
        unit_ND = F.normalize(torch.cat(parts), dim=1)
        person_N = torch.from_numpy(self.person_N).to(device)
        scores = []
        for class_N in torch.from_numpy(self.class_NL).to(device).unbind(1):
            known = class_N >= 0
            scores.append(knn_accuracy(unit_ND[known], class_N[known], person_N[known], self.neighbours))
        return float(torch.stack(scores).mean())

    @cached_property
    def pixels_NHW3(self) -> NDArray[np.uint8]:
        """The pixels of all images, read once."""
        return self.read_pixels()

    def _batch(self, first: int, device: torch.device) -> Tensor:
        pixels_BHW3 = torch.from_numpy(self.pixels_NHW3[first : first + BATCH_SIZE]).to(device)
        batch = pixels_BHW3.permute(0, 3, 1, 2).float().div_(255)
        return normalize(batch, self.views.mean, self.views.std)


def knn_accuracy(unit_ND: Tensor, class_N: Tensor, person_N: Tensor, neighbours: int) -> Tensor:
    """Returns the balanced accuracy of a weighted vote among nearest neighbours that show other people.

    A neighbour with cosine s votes with exp(s / `TEMPERATURE`) divided by the size of its class, so that rare classes
    count as much as common ones. Chance level is 1 / number of classes.

    Args:
        unit_ND: Features of length 1.
        class_N: Classes, 0 or greater.
        person_N: Number of the person of each row.
        neighbours: Number of neighbours that vote.
    """
    cosine_NN = unit_ND @ unit_ND.T
    cosine_NN.masked_fill_(person_N[:, None] == person_N[None], -torch.inf)
    near_NK = cosine_NN.topk(min(neighbours, len(unit_ND)), dim=1)
    member_NC = F.one_hot(class_N).to(unit_ND.dtype)
    vote_NK1 = near_NK.values.div(TEMPERATURE).exp().unsqueeze(2)
    votes_NC = (vote_NK1 * (member_NC / member_NC.sum(0))[near_NK.indices]).sum(1)
    correct_N = votes_NC.argmax(1) == class_N
    return (member_NC[correct_N].sum(0) / member_NC.sum(0)).mean()


def load_probe(config: ProbeConfig, image_size: int, views: ViewsConfig, quarantined: Set[str]) -> Probe:
    """Returns a probe of the labelled faces in the splits train and val of a manifest, never of its test split.

    Args:
        config: The labelled set and the vote.
        image_size: Side in pixels to which the images are scaled.
        views: Normalisation of the images.
        quarantined: Keys of images to leave out.

    Raises:
        FileNotFoundError: The manifest does not exist.
        ValueError: A label is not a column of the manifest, or has fewer than two classes there.
    """
    path = Path(config.manifest)
    frame = read_usable_rows(path, quarantined, ("train", "val"))
    chosen = np.random.default_rng(SEED).permutation(len(frame))[: config.images]
    frame = frame.iloc[np.sort(chosen)]
    return Probe(
        config.every,
        config.neighbours,
        partial(images.read, frame, Path(config.shards), image_size),
        np.column_stack([_classes(frame, name, path) for name in config.labels]),
        pd.factorize(frame["person"].fillna(frame["key"]))[0],
        views,
    )


def _classes(frame: pd.DataFrame, name: str, path: Path) -> NDArray[np.int64]:
    """Returns the classes of a label as numbers from 0, −1 where unknown."""
    known = sorted(column.removeprefix("label.") for column in frame.columns if column.startswith("label."))
    if name not in known:
        raise ValueError(
            f"{path}: has no label {name!r} (probe.labels); it has: {', '.join(known) or 'none'}"
        )
    codes, classes = pd.factorize(frame[f"label.{name}"], sort=True)
    if len(classes) < 2:
        raise ValueError(
            f"{path}: label {name!r} has {len(classes)} class among the images of train and val: "
            "choose another in probe.labels"
        )
    return codes
