"""The online probe: how well a face's nearest neighbours tell its labels, while the backbone is being trained."""

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
from fra.data.views.views import ViewsConfig, normalize
from fra.files import read_parquet

SEED = 0
"""Draws the faces where there are more than `images`: the same ones in every run."""
TEMPERATURE = 0.07
"""Of the neighbours' votes (Wu et al. 2018, "Unsupervised feature learning via non-parametric instance
discrimination")."""
AT_ONCE = 64
"""Images that go through the backbone together."""


@dataclass(frozen=True)
class ProbeConfig:
    """Every how many epochs (0: never), which labels, from how many neighbours, of at most how many images.

    `manifest`, `shards` and `validation` are those of the labelled set: a file and two folders.
    """

    every: int
    labels: tuple[str, ...]
    neighbours: int
    images: int
    manifest: str
    shards: str
    validation: str

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"probe.every must not be negative, got {self.every} (0 switches the probe off)")
        for name in ("neighbours", "images"):
            if getattr(self, name) < 1:
                raise ValueError(f"probe.{name} must be at least 1, got {getattr(self, name)}")
        if self.every and not self.labels:
            raise ValueError("probe.labels is empty: name label columns of the manifest, such as [Smiling]")


@dataclass(frozen=True)
class Probe:
    """Labelled faces: pixels, the class of each label (−1 where unknown), and who each one is.

    Pixels are read when it is first asked, and kept: only one rank asks.
    """

    every: int
    neighbours: int
    read: Callable[[], NDArray[np.uint8]]
    class_NL: NDArray[np.int64]
    person_N: NDArray[np.int64]
    views: ViewsConfig

    def __call__(self, backbone: nn.Module, device: torch.device) -> float:
        """Mean over the labels of `knn_accuracy` on the backbone's pooled features.

        The backbone sees whole images in eval mode, and is left as it was: no weight, no batch statistic and
        no random state changes. One rank asks; no other takes part.
        """
        unit_ND = F.normalize(self._features(backbone, device), dim=1)
        person_N = torch.from_numpy(self.person_N).to(device)
        scores = []
        for class_N in torch.from_numpy(self.class_NL).to(device).unbind(1):
            known = class_N >= 0
            scores.append(knn_accuracy(unit_ND[known], class_N[known], person_N[known], self.neighbours))
        return float(torch.stack(scores).mean())

    @cached_property
    def pixels_NHW3(self) -> NDArray[np.uint8]:
        return self.read()

    def _features(self, backbone: nn.Module, device: torch.device) -> Tensor:
        was_training = backbone.training
        backbone.eval()
        parts = []
        # Eager: compiled code of the training step must not learn of other batch sizes.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for first in range(0, len(self.pixels_NHW3), AT_ONCE):
                pixels_BHW3 = torch.from_numpy(self.pixels_NHW3[first : first + AT_ONCE]).to(device)
                batch = pixels_BHW3.permute(0, 3, 1, 2).float().div_(255)
                features_BCHW: Tensor = backbone(normalize(batch, self.views.mean, self.views.std))
                parts.append(features_BCHW.mean((2, 3)))
        backbone.train(was_training)
        return torch.cat(parts)


def knn_accuracy(unit_ND: Tensor, class_N: Tensor, person_N: Tensor, neighbours: int) -> Tensor:
    """Balanced accuracy of a vote among each row's nearest neighbours, none of them of the same person.

    Rows are of length 1. A neighbour at cosine s votes with exp(s / `TEMPERATURE`), over the size of its class:
    rare classes count as much as common ones. Chance is 1 / classes.
    """
    cosine_NN = unit_ND @ unit_ND.T
    cosine_NN.masked_fill_(person_N[:, None] == person_N[None], -torch.inf)
    near_NK = cosine_NN.topk(min(neighbours, len(unit_ND)), dim=1)
    member_NC = F.one_hot(class_N).to(unit_ND.dtype)
    vote_NK1 = near_NK.values.div(TEMPERATURE).exp().unsqueeze(2)
    votes_NC = (vote_NK1 * (member_NC / member_NC.sum(0))[near_NK.indices]).sum(1)
    right_N = votes_NC.argmax(1) == class_N
    return (member_NC[right_N].sum(0) / member_NC.sum(0)).mean()


def load(config: ProbeConfig, image_size: int, views: ViewsConfig, quarantined: Set[str]) -> Probe:
    """The labelled faces of a manifest's training and validation people, less the keys `quarantined`; never its test.

    Raises:
        FileNotFoundError: there is no such manifest.
        ValueError: a label is not in it, or has a single class there.
    """
    path = Path(config.manifest)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such manifest; run the stages ingest and shard of that set first"
        )
    frame = read_parquet(path)
    usable = frame["split"].isin(["train", "val"]) & frame["shard"].notna() & ~frame["key"].isin(quarantined)
    frame = frame[usable].reset_index(drop=True)
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
    """A label's classes as numbers from 0, −1 where unknown."""
    known = sorted(column.removeprefix("label.") for column in frame.columns if column.startswith("label."))
    if name not in known:
        raise ValueError(
            f"{path}: has no label {name!r} (probe.labels); it has: {', '.join(known) or 'none'}"
        )
    codes, classes = pd.factorize(frame[f"label.{name}"], sort=True)
    if len(classes) < 2:
        raise ValueError(
            f"{path}: label {name!r} has {len(classes)} class among the images of train and val: "
            "name another in probe.labels"
        )
    return codes
