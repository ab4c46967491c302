"""Where masks begin, if not at random: at clusters of what the network already tells apart."""

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
from fra.method.networks import FRA
from fra.train.prefetch import Batch

PIXELS = 16_384
"""How many places of feature maps are enough for some tens of clusters."""


@torch.no_grad()
def start_at_clusters(model: FRA, feed: Iterable[Batch], seed: int) -> None:
    """Aim the mask embeddings at K clusters of pixel projections, those of the first batches of `feed` (view 1).

    Masks that begin at random divide pixels at random, and largely stay so, since the relation only asks for an even
    and certain division; clusters of trained features are close to facial parts
    (docs/results/recipe-search.md). Clusters are k-means's
    of directions, as scores are cosines, of at least `PIXELS` places where `feed` has as many. Nothing but the last
    layer of both decoders and the prototypes is changed: a copy of the online network looks, as in training. The same
    images give the same bits again; on another number of ranks the same masks, to rounding, where there is no dropout.

    Batches that give no finite numbers are left out. Raises ValueError where no more places than masks are left.
    """
    from sklearn.cluster import KMeans  # takes a second: only where it is used

    # Dropout and k-means draw from these.
    for_torch, for_clusters = np.random.SeedSequence([seed, dist.rank()]), np.random.SeedSequence([seed])
    torch.manual_seed(int(for_torch.generate_state(1)[0]))
    encoder = copy.deepcopy(model.online)
    neck = encoder.region_neck
    assert neck is not None, "a model without region branch has no masks"
    pixels: list[Tensor] = []
    hidden: list[Tensor] = []
    seen = 0
    for batch in feed:
        features_BCHW = encoder.backbone(batch.view1_B3HW)
        height, width = features_BCHW.shape[-2:]
        features_BPC = features_BCHW.flatten(2).mT
        direction_BPD = functional.normalize(full_precision(neck.pixel_mlp(features_BPC)), dim=-1)
        order_B = dist.rows_of_all_ranks(batch.index_B.to(direction_BPD.device)).argsort(stable=True)
        pixels_PD = dist.rows_of_all_ranks(direction_BPD)[order_B].flatten(0, 1)
        hidden_KD = dist.mean_over_ranks(neck.decoder.hidden(features_BPC, height, width).mean(0))
        if not bool(pixels_PD.isfinite().all() and hidden_KD.isfinite().all()):
            continue  # its step will tell
        pixels.append(pixels_PD)
        hidden.append(hidden_KD)
        seen += len(pixels_PD)
        if seen >= PIXELS:
            break
    masks = len(neck.masks_KD)
    if seen <= masks:
        raise ValueError(
            f"train.mask_init=clusters: {seen} places with finite features are too few for {masks} masks"
        )
    clusters = KMeans(masks, n_init=4, random_state=int(for_clusters.generate_state(1)[0]))
    with threadpool_limits(1):  # several threads add up in the order in which they end
        clusters.fit(torch.cat(pixels).cpu().numpy())
    centre_KD = torch.from_numpy(clusters.cluster_centers_).to(neck.masks_KD)
    model.aim_masks(full_precision(torch.stack(hidden).mean(0)), centre_KD)
    for encoder in (model.online, model.target):  # unlike machines round differently
        for tensor in encoder.state_dict().values():
            dist.of_first_rank(tensor)
