"""Input of the benchmarks: synthetic images, shards and betons of a folder of images."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.loader.config import LoaderName
from fra.data.shards import write
from fra.data.shards.config import ShardConfig


def write_images(root: Path, count: int, side: int = 200) -> None:
    """Writes `count` synthetic JPEG files, about as large in bytes as faces of `side`×`side` pixels, in 10 folders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + generator.normal(0, 6, (side, side, 1)).astype(np.int16)).clip(0, 255)
        path = root / f"{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.astype(np.uint8)).save(path, quality=90)


def list_images(root: Path, out: Path) -> pd.DataFrame:
    """Returns the records of a folder of images."""
    return ingest(DatasetConfig("bench", "folder", str(root)), out / "raw")


def write_shards(records: pd.DataFrame, root: Path, out: Path, config: ShardConfig) -> pd.DataFrame:
    """Writes tar shards and manifest into `out`, only what changed if they exist; returns the manifest."""
    return write.write(records, root, out / "shards", out / "manifest.parquet", config, out / "state")


def fastest_loader() -> LoaderName:
    """Returns "ffcv", or "webdataset" where FFCV is not installed."""
    return "ffcv" if importlib.util.find_spec("ffcv") else "webdataset"


@contextmanager
def images_and_source(
    root: Path | None, images: int, workers: int, loader: LoaderName = "ffcv"
) -> Iterator[tuple[Path, Path]]:
    """Yields a folder of images and what the loader reads: its beton, or the folder of its tar shards.

    Args:
        root: Folder of folders of images; None writes synthetic ones of 200×200 pixels.
        images: Number of synthetic images.
        workers: Number of processes that write shards.
        loader: As data.loader.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        out = Path(name)
        if root is None:
            root = out / "faces"
            write_images(root, images)
        config = ShardConfig(workers=workers)
        manifest = write_shards(list_images(root, out), root, out, config)
        if loader == "webdataset":
            yield root, out / "shards"
            return
        from fra.data.shards import beton  # imported here: it needs FFCV

        beton.write(manifest, out / "shards", out / "beton", config)
        yield root, out / "beton" / "train.beton"
