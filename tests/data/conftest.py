from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fra.data.datasets import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import beton, write
from fra.data.shards.config import ShardConfig

RAW_BYTES = 10_000
"""Images of fewer bytes of pixels are kept raw in the betons."""
BAD = {
    "s1/text.jpg": b"this is no image",
    "s1/empty.png": b"",
}


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 colour pictures of 6 people, of several sizes and formats, with bad files among them."""
    root = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(0)
    for number in range(60):
        height, width = generator.integers(40, 90, 2)
        coarse = generator.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        path = root / f"s{number % 6}" / f"{number}.{('png', 'jpg', 'bmp')[number % 3]}"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
    for name, content in BAD.items():
        (root / name).write_bytes(content)
    whole = (root / "s0" / "0.png").read_bytes()
    (root / "s1" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 1)).save(root / "s1" / "dot.png")
    return root


@pytest.fixture(scope="session")
def prepared(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same faces as records, shards, betons and manifest."""
    out = tmp_path_factory.mktemp("prepared")
    prepare(faces, out)
    return out


def prepare(faces: Path, out: Path, images_per_shard: int = 20) -> pd.DataFrame:
    config = ShardConfig(images_per_shard=images_per_shard, workers=2, smart_threshold=RAW_BYTES)
    records = ingest.ingest(DatasetConfig("faces", "folder", str(faces), val=0.2, test=0.2), out / "raw")
    manifest = write.write(records, faces, out / "shards", out / "manifest.parquet", config, out / "state")
    shutil.rmtree(out / "beton", ignore_errors=True)
    beton.write(manifest, out / "shards", out / "beton", config)
    return manifest
