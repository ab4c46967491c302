"""Schedules of the learning rate and of the target network's momentum."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def cap_warmup(warmup_epochs: int, epochs: int, section: str) -> int:
    """Returns the epochs of the warm-up: all of a training that is shorter than it, with a warning.

    Args:
        warmup_epochs: Epochs that were configured.
        epochs: Epochs of the training.
        section: The section of params.yaml that both are parameters of, for the warning.
    """
    if warmup_epochs > epochs:
        logger.warning(
            "%s.warmup_epochs %d is capped to %s.epochs %d: the learning rate only rises",
            section,
            warmup_epochs,
            section,
            epochs,
        )
    return min(warmup_epochs, epochs)


def warmup_cosine(peak: float, epochs: int, warmup_epochs: int, steps_per_epoch: int) -> NDArray[np.float64]:
    """Returns the learning rate of each step: (epochs · steps_per_epoch,), float64.

    It rises linearly with every step up to `peak` during the warm-up, then follows a cosine to nearly 0 that changes
    once per epoch, as in the official code.

    Raises:
        ValueError: `epochs` or `steps_per_epoch` is below 1, or `warmup_epochs` is not in [0, epochs].
    """
    if epochs < 1 or steps_per_epoch < 1:
        raise ValueError(
            f"a schedule needs at least one epoch and one step per epoch, got {epochs} and {steps_per_epoch}"
        )
    if not 0 <= warmup_epochs <= epochs:
        raise ValueError(f"warm-up must be between 0 and {epochs} epochs, got {warmup_epochs}")
    warmup_steps = warmup_epochs * steps_per_epoch
    rise = peak * np.arange(1, warmup_steps + 1) / max(warmup_steps, 1)
    part = np.arange(epochs - warmup_epochs) / max(epochs - warmup_epochs, 1)
    fall = peak * 0.5 * (1 + np.cos(np.pi * part))
    return np.concatenate([rise, fall.repeat(steps_per_epoch)])


def target_momentum(base: float, step: int, steps: int) -> float:
    """Returns the target network's momentum after step `step` of `steps`, from `base` to 1 by a cosine.

    1 − (1 − base) · (cos(π · step / steps) + 1) / 2, as in BYOL (arXiv 2006.07733, implementation details).
    """
    return 1 - (1 - base) * (math.cos(math.pi * step / steps) + 1) / 2
