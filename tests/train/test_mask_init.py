"""Initialisation of masks at clusters of pixels."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from support.toy_training import SIZE, run
from torch import nn
from torch.nn import functional

from fra.method.config import ModelConfig
from fra.method.networks import FRA
from fra.train.mask_init import init_masks_from_clusters
from fra.train.prefetch import Batch
from train.test_pretrain import history


def batch(seed: int) -> Batch:
    """Images whose three bands, at places that differ, are each of one colour and some noise."""
    generator = torch.Generator().manual_seed(seed)
    view = 0.1 * torch.randn(8, 3, SIZE, SIZE, generator=generator)
    for image in view:
        first, second = sorted(torch.randint(8, SIZE - 8, (2,), generator=generator).tolist())
        for channel, rows in enumerate((slice(first), slice(first, second), slice(second, None))):
            image[channel, rows] += 3
    return Batch(torch.randperm(8, generator=generator), view, view)


def started(seed: int) -> tuple[FRA, FRA]:
    """A model as it is built, whose backbone sees colours, and the same begun at clusters."""
    torch.manual_seed(seed)
    sizes = {"feature_dim": 3, "num_masks": 3, "hidden_dim": 32, "projection_dim": 16}
    before = FRA(nn.AvgPool2d(8), **sizes, query_std=10.0)
    after = copy.deepcopy(before)
    init_masks_from_clusters(after, [batch(1), batch(2)], seed)
    return before, after


def test_only_the_last_layer_of_both_decoders_and_the_prototypes_change() -> None:
    was, now = (model.state_dict() for model in started(0))
    changed = sorted(name for name in was if not torch.equal(was[name], now[name]))
    parts = ("decoder.mask_embed.4.weight", "masks_KD")
    assert changed == [f"{network}.region_neck.{part}" for network in ("online", "target") for part in parts]
    assert torch.equal(now[changed[0]], now[changed[2]])


def test_too_few_pixels_are_refused() -> None:
    torch.manual_seed(0)
    model = FRA(nn.AvgPool2d(8), feature_dim=3, num_masks=3, hidden_dim=32, projection_dim=16)
    nothing = batch(1)._replace(view1_B3HW=torch.full((8, 3, SIZE, SIZE), float("nan")))
    with pytest.raises(ValueError, match="0 pixels with finite features are too few for 3 masks"):
        init_masks_from_clusters(model, [nothing], 0)


@pytest.mark.slow
def test_the_same_images_give_the_same_bits_on_many_cores() -> None:
    """Of so many places that k-means shares them out."""
    program = """
import hashlib, torch
from torch import nn
from fra.method.networks import FRA
from fra.train.prefetch import Batch
from fra.train.mask_init import init_masks_from_clusters
digests = set()
for _ in range(4):
    torch.manual_seed(0)
    model = FRA(nn.AvgPool2d(2), feature_dim=3, num_masks=8, hidden_dim=32, projection_dim=16)
    view = torch.randn(64, 3, 32, 32)
    init_masks_from_clusters(model, [Batch(torch.arange(64), view, view)], 0)
    digests.add(hashlib.sha256(model.online.region_neck.masks_KD.numpy().tobytes()).hexdigest())
assert len(digests) == 1, digests
"""
    threads = {**os.environ, "OMP_NUM_THREADS": "8"}
    subprocess.run([sys.executable, "-c", program], env=threads, check=True, timeout=300)


def test_masks_agree_with_the_contents_of_new_images_better_than_random_ones() -> None:
    unseen = batch(3).view1_B3HW
    colour_N = functional.interpolate(unseen, size=(4, 4), mode="area").argmax(1).ravel()
    scores = np.array(
        [
            [
                adjusted_rand_score(colour_N, model.online(unseen).regions.heatmaps_BKHW.argmax(1).ravel())
                for model in pair
            ]
            for pair in map(started, range(8))
        ]
    )
    random, clusters = scores.mean(axis=0)
    assert clusters > random + 0.2, (random, clusters, scores)


def test_training_uses_them_when_regions_start(tmp_path: Path) -> None:
    """Scores differ between masks from the first step on, and so the assignment is more certain."""
    late = {"epochs": 2, "region_start_epoch": 1, "log_every": 1, "lr": 0.0}
    for name in ("random", "clusters"):
        run(tmp_path / name, **late, mask_init=name)
    random, clusters = (history(tmp_path / name) for name in ("random", "clusters"))
    assert [row["total"] for row in random[:4]] == [row["total"] for row in clusters[:4]]
    assert float(clusters[4]["mask_entropy"]) < 0.9 * float(random[4]["mask_entropy"])


def test_without_region_branch_it_has_no_effect(tmp_path: Path) -> None:
    metrics = run(tmp_path, epochs=1, mask_init="clusters", model=ModelConfig("small", 1, 16, 32))
    assert metrics["region"] == 0
