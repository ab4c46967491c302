"""What can go wrong while training, and how it is noticed: collapse, divergence, lack of memory, a stop
signal."""

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


def collapse(seen: Embeddings, temperature: float) -> Tensor:
    """Signs of collapse in a batch, (3,): embedding_std, mask_entropy, masks_used.

    embedding_std: deviation of the normalised embeddings over the batch, × √D: about 1 when they spread over
    the sphere, 0 when all images look the same (SimSiam, figure 2). mask_entropy: mean over pixels of the
    entropy of their assignment to masks (scores / `temperature`), over log K: 1 when no pixel prefers a
    mask, 0 when each is certain. masks_used: exponential of the entropy of the mean assignment: K when all
    masks get the same share of pixels, 1 when one takes all. Without region branch the last two are 0 and 1.
    """
    unit_BD = F.normalize(seen.global_BD.float(), dim=1)
    spread = unit_BD.std(dim=0, correction=0).mean() * math.sqrt(unit_BD.shape[1])
    if seen.regions is None:
        return torch.stack([spread, torch.zeros_like(spread), torch.ones_like(spread)])
    assigned_NK = mask_assignment(seen.regions.scores_BKHW.float(), temperature).exp()
    certainty = entropy(assigned_NK).mean() / math.log(assigned_NK.shape[1])
    return torch.stack([spread, certainty, entropy(assigned_NK.mean(0)).exp()])


class CollapseWatch:
    """Warns once of each sign of collapse that lasts for `patience` readings."""

    limits: ClassVar = {"embedding_std": 0.05, "masks_used": 1.05}

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self.below = dict.fromkeys(self.limits, 0)

    def see(self, reading: dict[str, float], regional: bool) -> None:
        """A row of the history; its masks count where there are regions."""
        for name, limit in self.limits.items():
            if name == "masks_used" and not regional:
                continue
            self.below[name] = self.below[name] + 1 if reading[name] < limit else 0
            if self.below[name] == self.patience:
                logger.warning(
                    "the networks seem to collapse: %s has been below %g for %d readings (%.3g at step %d); "
                    "a lower train.lr, a longer warm-up or a larger batch may help",
                    name,
                    limit,
                    self.patience,
                    reading[name],
                    reading["step"],
                )


class Divergence:
    """Judges each step's loss: bad when not finite, or `factor` times its running mean."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.mean: float | None = None

    def is_bad(self, loss: float) -> bool:
        if not math.isfinite(loss) or (self.mean is not None and loss > self.factor * self.mean):
            return True
        self.mean = loss if self.mean is None else 0.98 * self.mean + 0.02 * loss
        return False
