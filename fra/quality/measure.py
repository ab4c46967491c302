"""Measures the bytes that a manifest names, so that expectations can be put on them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from fra.data.images import ImageError, decode, members


def measure_image(content: bytes) -> dict[str, Any]:
    """What an image's bytes say: their hash, and brightness (mean) and contrast (deviation) of its pixels, 0…255."""
    found: dict[str, Any] = {"found_sha256": hashlib.sha256(content).hexdigest()}
    try:
        pixels = decode(content)
    except ImageError:
        return found
    grey = pixels.mean(axis=2)
    return {
        **found,
        "found_width": pixels.shape[1],
        "found_height": pixels.shape[0],
        "brightness": float(grey.mean()),
        "contrast": float(np.std(grey)),
    }


def measure(manifest: pd.DataFrame, shards: Path) -> pd.DataFrame:
    """The manifest with what was measured in its shards; rows in no shard have nulls there."""
    rows = []
    with tqdm(total=len(manifest), unit="image", desc="measure", mininterval=1) as progress:
        for shard, listed in manifest[manifest["shard"].notna()].groupby("shard", sort=True):
            for key, content in members(shards / str(shard), set(listed["key"])):
                rows.append({"key": key, **measure_image(content)})
                progress.update()
    columns = ["key", "found_sha256", "found_width", "found_height", "brightness", "contrast"]
    return manifest.merge(pd.DataFrame(rows, columns=columns), on="key", how="left", validate="one_to_one")
