"""Collapse indicators, and a warning when they stay low."""

from __future__ import annotations

import logging
import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fra.method.losses import entropy, mask_assignment
from fra.method.networks import Embeddings

logger = logging.getLogger(__name__)

INDICATORS = ("embedding_std", "mask_entropy", "masks_used")
"""Names of the values that `collapse_indicators` returns, in order."""


def collapse_indicators(embeddings: Embeddings, temperature: float) -> Tensor:
    """Returns the collapse indicators of one batch.

    - embedding_std: standard deviation of the normalised global embeddings over the batch, times √D. About 1 when
      they spread over the unit sphere, 0 when all images have the same embedding (SimSiam, arXiv 2011.10566, figure 2).
    - mask_entropy: mean over pixels of the entropy of their assignment to masks, divided by log K. 1 when each pixel
      is assigned evenly to all masks, 0 when each pixel belongs to one mask.
    - masks_used: exponential of the entropy of the mean assignment. K when all masks have the same share of pixels,
      1 when one mask has all of them.

    Args:
        embeddings: Output of an encoder for B images. Without regions, mask_entropy is 0 and masks_used is 1.
        temperature: Temperature of the softmax over the mask scores.

    Returns:
        Tensor (3,) in the order of `INDICATORS`, on the device of the embeddings.
    """
    unit_BD = F.normalize(embeddings.global_BD.float(), dim=1)
    std = unit_BD.std(dim=0, correction=0).mean() * math.sqrt(unit_BD.shape[1])
    if embeddings.regions is None:
        return torch.stack([std, torch.zeros_like(std), torch.ones_like(std)])
    assigned_NK = mask_assignment(embeddings.regions.scores_BKHW.float(), temperature).exp()
    mask_entropy = entropy(assigned_NK).mean() / math.log(assigned_NK.shape[1])
    return torch.stack([std, mask_entropy, entropy(assigned_NK.mean(0)).exp()])


class CollapseMonitor:
    """Warns once for each indicator that stays below its limit for `patience` rows of the history."""

    limits: ClassVar = {"embedding_std": 0.05, "masks_used": 1.05}

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self.rows_below = dict.fromkeys(self.limits, 0)

    def update(self, row: dict[str, float], regional: bool) -> None:
        """Takes a new row of the history; `masks_used` is ignored unless `regional`."""
        for name, limit in self.limits.items():
            if name == "masks_used" and not regional:
                continue
            self.rows_below[name] = self.rows_below[name] + 1 if row[name] < limit else 0
            if self.rows_below[name] == self.patience:
                logger.warning(
                    "the networks seem to collapse: %s has been below %g for %d rows of the history (%.3g at step "
                    "%d); a lower train.lr, a longer warm-up or a larger batch may help",
                    name,
                    limit,
                    self.patience,
                    row[name],
                    row["step"],
                )
