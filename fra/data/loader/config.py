"""Parameters of reading batches, and the interface of a loader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from fra.data.views.views import Crops


@dataclass(frozen=True)
class DataConfig:
    """How batches are read. `workers` 0 = one a core.

    `order` is for ffcv: "random" over the whole epoch, or "chunk_shuffle" for betons larger than memory, which reads runs of
    the file and shuffles them in windows of `shuffle_buffer` images; WebDataset's streams are always shuffled so.
    """

    loader: str = "ffcv"
    order: str = "random"
    image_size: int = 224
    workers: int = 0
    batches_ahead: int = 3
    shuffle_buffer: int = 10_000

    def __post_init__(self) -> None:
        if self.loader not in ("ffcv", "webdataset"):
            raise ValueError(f"data.loader is {self.loader!r}: choose ffcv or webdataset")
        if self.order not in ("random", "chunk_shuffle"):
            raise ValueError(f"data.order is {self.order!r}: choose random or chunk_shuffle")
        if self.image_size < 8:
            raise ValueError(f"data.image_size is {self.image_size}: must be at least 8 pixels")


class Loader(Protocol):
    """The interface through which pre-training reads batches.

    Attributes:
        steps_per_epoch: Number of batches in an epoch, the same on every rank.
    """

    steps_per_epoch: int

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        """The batches of an epoch from `start_step` on; equal arguments give equal batches."""
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
