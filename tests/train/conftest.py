from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.train.config import ProbeConfig

PEOPLE, IMAGES = 10, 4


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled set as sharding leaves it: `faces.parquet`, `shards/`, `beton/`.

    Each image is noise, brighter where `Bright` is 1; people 6 and 7 are for validation, 8 and 9 for the test.
    """
    from fra.data.shards import (
        beton,
    )  # imported here: tests on a machine without FFCV need this folder's other fixtures

    root = tmp_path_factory.mktemp("labelled")
    generator = np.random.default_rng(0)
    rows = []
    for person in range(PEOPLE):
        for number in range(IMAGES):
            bright = number % 2
            pixels = generator.normal(170 if bright else 80, 20, (24, 24, 3)).clip(0, 255).astype(np.uint8)
            key = f"p{person}_{number}"
            Image.fromarray(pixels).save(root / f"{key}.png")
            rows.append(
                {
                    "key": key,
                    "source": f"{key}.png",
                    "split": "test" if person > 7 else "val" if person > 5 else "train",
                    "person": f"p{person}",
                    "bytes": None,
                    "modified": None,
                    "label.Bright": None if (person, number) == (0, 0) else bright,
                    "label.Alike": 1,
                    "landmarks": None,
                }
            )
    records = pd.DataFrame(rows).astype({"label.Bright": "Int64", "label.Alike": "Int64"})
    config = ShardConfig(workers=1)
    manifest = write(records, root, root / "shards", root / "faces.parquet", config, root / "state")
    beton.write(manifest, root / "shards", root / "beton", config)
    return root


@pytest.fixture(scope="session")
def faces(labelled: Path) -> ProbeConfig:
    """A probe of the labelled set."""
    return ProbeConfig(
        every=1,
        labels=("Bright",),
        neighbours=5,
        images=1000,
        manifest=str(labelled / "faces.parquet"),
        shards=str(labelled / "shards"),
        validation="",
    )
