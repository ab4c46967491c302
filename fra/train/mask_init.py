"""Initialisation of the masks at clusters of pixel features, as an alternative to random masks."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from fra import dist
from fra.method.losses import full_precision
from fra.method.networks import FRA, RegionNeck
from fra.train.prefetch import Batch

MIN_PIXELS = 16_384
"""How many pixels of feature maps k-means gets: enough for tens of clusters."""


@torch.no_grad()
def init_masks_from_clusters(model: FRA, feed: Iterable[Batch], seed: int) -> None:
    """Sets the mask embeddings of both networks to K cluster centres of pixel projections.

    Random masks divide pixels at random and largely stay so, as the relation loss only demands an even and certain
    assignment; clusters of trained features are closer to facial parts (docs/results). The paper starts at random.
    K-means clusters the normalised projections (scores are cosines) of view 1 of the first batches of `feed`, until
    there are `MIN_PIXELS`. Only the last layer of both decoders and the prototypes change; the forward passes run on
    a copy.

    The result is deterministic. On another number of ranks it is equal up to rounding, without dropout.

    Args:
        model: Networks with a region branch.
        feed: Batches of this rank; those with features that are not finite are skipped.
        seed: Seed of dropout and k-means.

    Raises:
        ValueError: Not more pixels with finite features than masks.
    """
    rank_seed, shared_seed = np.random.SeedSequence([seed, dist.rank()]), np.random.SeedSequence([seed])
    torch.manual_seed(int(rank_seed.generate_state(1)[0]))
    neck = model.online.region_neck
    assert neck is not None, "a model without region branch has no masks"
    pixels_PD, hidden_KD = _pixels_and_hidden(model, feed)
    masks = len(neck.masks_KD)
    if len(pixels_PD) <= masks:
        raise ValueError(
            f"train.mask_init=clusters: {len(pixels_PD)} pixels with finite features are too few for {masks} masks"
        )
    centre_KD = _cluster_centres(pixels_PD, masks, int(shared_seed.generate_state(1)[0]))
    model.initialise_masks(hidden_KD, centre_KD.to(neck.masks_KD))
    for encoder in (model.online, model.target):  # ranks on different hardware may round differently
        for tensor in encoder.state_dict().values():
            dist.broadcast(tensor)


def _pixels_and_hidden(model: FRA, feed: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Returns unit pixel projections (P, D) of all ranks and the mean decoder state (K, D) before its last layer."""
    encoder = copy.deepcopy(model.online)
    neck = encoder.region_neck
    assert isinstance(neck, RegionNeck)
    pixels: list[Tensor] = []
    hidden: list[Tensor] = []
    for batch in feed:
        features_BCHW = encoder.backbone(batch.view1_B3HW)
        height, width = features_BCHW.shape[-2:]
        features_BPC = features_BCHW.flatten(2).mT
        unit_BPD = functional.normalize(full_precision(neck.pixel_mlp(features_BPC)), dim=-1)
        # Sorted by image, so that the result does not depend on how images are divided among ranks.
        order_B = dist.gather_rows(batch.index_B.to(unit_BPD.device)).argsort(stable=True)
        pixels_PD = dist.gather_rows(unit_BPD)[order_B].flatten(0, 1)
        hidden_KD = dist.mean_over_ranks(neck.decoder.hidden(features_BPC, height, width).mean(0))
        if not bool(pixels_PD.isfinite().all() and hidden_KD.isfinite().all()):
            continue  # the training step on this batch reports the divergence
        pixels.append(pixels_PD)
        hidden.append(hidden_KD)
        if sum(map(len, pixels)) >= MIN_PIXELS:
            break
    if not pixels:
        empty_0D = neck.masks_KD.new_empty((0, neck.masks_KD.shape[1]))
        return empty_0D, empty_0D
    return torch.cat(pixels), full_precision(torch.stack(hidden).mean(0))


def _cluster_centres(pixels_PD: Tensor, clusters: int, seed: int) -> Tensor:
    """Returns the k-means centres (K, D) of pixels (P, D)."""
    from sklearn.cluster import KMeans  # the import takes a second

    kmeans = KMeans(clusters, n_init=4, random_state=seed)
    with threadpool_limits(1):  # the order of sums over several threads is not deterministic
        kmeans.fit(pixels_PD.cpu().numpy())
    return torch.from_numpy(kmeans.cluster_centers_)
