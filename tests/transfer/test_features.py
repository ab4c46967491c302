"""The cache of features: its key covers everything that features depend on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.labelled_set import Set

import fra
from fra.transfer import features
from fra.weights import pretrained

ROOT = Path(fra.__file__).parent


@contextmanager
def executed_modules() -> Iterator[set[str]]:
    """The modules of `fra` whose functions are called inside the block."""
    found: set[str] = set()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            found.add(file.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))

    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("aligned", [False, True])
def test_cache_key_covers_every_module_that_computes_features(
    faces: Set, tmp_path: Path, aligned: bool
) -> None:
    encoder, frame = pretrained.load(faces.backbone), pd.read_parquet(faces.manifest).head(8)
    source = features.Source(faces.shards, tmp_path, aligned)
    with executed_modules() as found:
        features.extract(encoder, frame, source, "pooled", 8, torch.device("cpu"))
    covered = {module.__name__.removeprefix("fra.") for module in features.FEATURE_CODE}
    assert {"data.images", "method.backbone", "weights.pretrained"} <= found
    assert found - {"files"} <= covered | {"transfer.features"}


def test_cache_key_changes_with_weights_normalisation_and_code(
    faces: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.read_parquet(faces.manifest).head(4)
    source = features.Source(faces.shards, tmp_path, False)

    def extract(encoder: pretrained.PretrainedBackbone) -> int:
        features.extract(encoder, frame, source, "pooled", 8, torch.device("cpu"))
        return len(list(tmp_path.glob("features-*.npy")))

    encoder = pretrained.load(faces.backbone)
    assert [extract(encoder), extract(encoder)] == [1, 1]
    assert extract(pretrained.load(faces.backbone, seed=3)) == 2
    normalised = encoder.metadata | {"mean": [0.4] * 3}
    assert extract(pretrained.PretrainedBackbone(encoder.backbone, normalised).eval()) == 3
    (tmp_path / "images.py").write_text("# edited")
    monkeypatch.setattr(features.images, "__file__", str(tmp_path / "images.py"))
    assert extract(encoder) == 4


def test_features_are_those_of_the_loaded_encoder(faces: Set, tmp_path: Path) -> None:
    """The preprocessing of transfer and of inference is the same."""
    frame = pd.read_parquet(faces.manifest).head(4)
    source = features.Source(faces.shards, tmp_path, False)
    found = features.extract(pretrained.load(faces.backbone), frame, source, "pooled", 8, torch.device("cpu"))
    pixels = features.pixels(pretrained.load(faces.backbone), frame, source)
    np.testing.assert_array_equal(found, fra.load(faces.backbone).embed(list(pixels)).numpy())
