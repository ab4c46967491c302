"""The interface of a loader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from fra.data.views.views import Crops


class Loader(Protocol):
    """The interface through which pre-training reads batches.

    Attributes:
        steps_per_epoch: Number of batches in an epoch, the same on every rank.
    """

    steps_per_epoch: int

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        """Yields this rank's share of each batch of an epoch, from `start_step` on; equal arguments, equal batches."""
        ...


def steps(images: int, batch_size: int, world_size: int) -> int:
    """The number of full batches in each rank's share of an epoch.

    Raises:
        ValueError: There is none.
    """
    count = images // world_size // batch_size
    if count == 0:
        raise ValueError(
            f"{images} images make no batch of {batch_size} on each of {world_size} ranks: "
            f"set train.batch_size to {max(1, images // world_size)} or less"
        )
    return count
