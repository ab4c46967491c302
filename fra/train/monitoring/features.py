"""Pooled features of the backbone in training, computed without a trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from fra.parallel import map_batches

BATCH_SIZE = 64
"""Number of images per forward pass."""
T = TypeVar("T")


def pooled_features(
    backbone: nn.Module, inputs: Iterable[T], prepare: Callable[[T], Tensor], device: torch.device
) -> list[Tensor]:
    """Returns the mean-pooled features (B, D) of each batch.

    The backbone runs in eval mode. Weights, batch statistics, mode and random state stay unchanged. Called on one rank
    only.

    Args:
        backbone: The backbone in training.
        inputs: What batches are prepared from.
        prepare: Returns a batch (B, 3, H, W) on `device`, normalised.
        device: Where the backbone is.
    """
    was_training = backbone.training
    backbone.eval()

    @torch.no_grad()
    def features(item: T) -> Tensor:
        map_BCHW: Tensor = backbone(prepare(item))
        return map_BCHW.mean((2, 3))

    # Not compiled: another batch size would recompile the code of the training step.
    with torch.compiler.set_stance("force_eager"):
        found = list(map_batches(features, inputs, device))
    backbone.train(was_training)
    return found
