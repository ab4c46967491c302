"""Parameters of sharding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardConfig:
    """How records become shards and betons. `workers` 0 = one a core.

    `beton_mode` is how FFCV keeps pixels: "raw" (exact, large), "jpg" (at `jpeg_quality`), or "smart" (raw where an
    image has fewer than `smart_threshold` bytes of pixels). Sides longer than `max_side` are scaled down in the beton; the
    tar shards keep the file's own pixels. `keep_metadata` keeps what image files say beside their picture (place,
    time, camera, comments, previews; see `fra.data.shards.strip_metadata`). `executor` is who writes the shards: the processes of
    this machine ("local"), or the workers of a Dask scheduler at `dask_address`, which see the same folders.
    """

    images_per_shard: int = 1000
    workers: int = 0
    beton_mode: str = "smart"
    jpeg_quality: int = 95
    smart_threshold: int = 65536
    max_side: int = 512
    keep_metadata: bool = False
    executor: str = "local"
    dask_address: str | None = None

    def __post_init__(self) -> None:
        if self.images_per_shard < 1:
            raise ValueError(f"shard.images_per_shard is {self.images_per_shard}: must be at least 1")
        if self.beton_mode not in ("raw", "jpg", "smart"):
            raise ValueError(f"shard.beton_mode is {self.beton_mode!r}: choose raw, jpg or smart")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"shard.jpeg_quality is {self.jpeg_quality}: must be 1 to 100")
        if self.executor not in ("local", "dask"):
            raise ValueError(f"shard.executor is {self.executor!r}: choose local or dask")
        if self.executor == "dask" and not self.dask_address:
            raise ValueError("shard.dask_address is not set: where is the Dask scheduler (tcp://host:8786)?")
