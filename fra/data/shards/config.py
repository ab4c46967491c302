"""Parameters of sharding (section `shard` of params.yaml)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from fra.config import CHECKED


@dataclass(frozen=True, config=CHECKED)
class ShardConfig:
    """How records become WebDataset shards and FFCV betons."""

    images_per_shard: PositiveInt = 1000
    """Images of one tar."""
    workers: NonNegativeInt = 0
    """Processes that write; 0: one per core."""
    beton_mode: Literal["raw", "jpg", "smart"] = "smart"
    """How FFCV stores pixels: exact and large, as JPEG, or raw for small images only (see smart_threshold)."""
    jpeg_quality: Annotated[int, Ge(1), Le(100)] = 95
    """JPEG quality in the beton."""
    smart_threshold: NonNegativeInt = 65536
    """Bytes of pixels below which an image is stored raw by beton_mode smart."""
    max_side: PositiveInt = 512
    """Pixels; larger images are scaled down in the beton. Shards keep the file's own pixels."""
    keep_metadata: bool = False
    """Keep the image files' metadata (place, time, camera, comments, previews) instead of removing it."""
    executor: Literal["local", "dask"] = "local"
    """What writes the shards: processes of this machine, or workers of a Dask cluster that see the same folders."""
    dask_address: str | None = None
    """Address of the Dask scheduler, such as tcp://host:8786."""

    def __post_init__(self) -> None:
        if self.executor == "dask" and not self.dask_address:
            raise ValueError("dask_address is not set: give the Dask scheduler's address, tcp://host:8786")
