"""Parameters of the loaders (section `data` of params.yaml)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from fra.config import CHECKED

LoaderName = Literal["ffcv", "webdataset"]


@dataclass(frozen=True, config=CHECKED)
class DataConfig:
    """How training images are read."""

    loader: LoaderName = "ffcv"
    """Loader: ffcv reads betons, webdataset reads shards."""
    order: Literal["random", "chunk_shuffle"] = "random"
    """Order of ffcv: a random permutation, or chunks in random order for betons larger than memory."""
    image_size: Annotated[int, Ge(8)] = 224
    """Side of the views, in pixels."""
    workers: NonNegativeInt = 0
    """Threads that read and decode; 0: one per core."""
    batches_ahead: PositiveInt = 3
    """Batches that are prepared in advance."""
    shuffle_buffer: PositiveInt = 10_000
    """Images that are shuffled together by order=chunk_shuffle and by webdataset."""
