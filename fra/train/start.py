"""Where masks begin, if not at random: at clusters of what the network already tells apart."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from fra import dist
from fra.method.networks import FRA
from fra.train.feed import Batch

PIXELS = 16_384
"""How many pixels of feature maps are enough for some tens of clusters."""


@torch.no_grad()
def start_at_clusters(model: FRA, feed: Iterable[Batch], seed: int) -> None:
    """Aim the mask embeddings at K clusters of pixel projections, those of the first batches of `feed` (view 1).

    Masks that begin at random divide pixels at random, and largely stay so, since the relation only asks for an even
    and certain division; clusters of trained features are close to facial parts (docs/demo.md). Clusters are k-means's
    of directions, as scores are cosines. Nothing but the last layer of both decoders and the prototypes is changed: a
    copy of the online network looks, as in training but without dropout. The same images give the same masks on any
    number of ranks, to rounding.
    """
    encoder = copy.deepcopy(model.online)
    neck = encoder.region_neck
    assert neck is not None, "a model without region branch has no masks"
    neck.decoder.eval()
    pixels: list[Tensor] = []
    hidden: list[Tensor] = []
    seen = 0
    for batch in feed:
        features_BCHW = encoder.backbone(batch.view1_B3HW)
        height, width = features_BCHW.shape[-2:]
        features_BPC = features_BCHW.flatten(2).mT
        order_B = dist.rows_of_all_ranks(batch.index_B.to(features_BPC.device)).argsort(stable=True)
        direction_BPD = functional.normalize(neck.pixel_mlp(features_BPC), dim=-1)
        pixels.append(dist.rows_of_all_ranks(direction_BPD)[order_B].flatten(0, 1))
        hidden.append(dist.mean_over_ranks(neck.decoder.hidden(features_BPC, height, width).mean(0)))
        seen += len(pixels[-1])
        if seen >= PIXELS:
            break
    masks = len(neck.masks_KD)
    found = KMeans(masks, n_init=4, random_state=seed).fit(torch.cat(pixels).cpu().numpy())
    centre_KD = torch.from_numpy(found.cluster_centers_).to(neck.masks_KD)
    model.aim_masks(torch.stack(hidden).mean(0), dist.of_first_rank(centre_KD))
