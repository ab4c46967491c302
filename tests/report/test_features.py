"""Typical and unusual faces, and the map of features."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fra.inference import encoder as inference
from fra.report import features


def test_nearest_and_farthest_faces_are_of_different_test_people(artifacts: dict[str, Any]) -> None:
    encoder = inference.load(artifacts["pretrain"] / "model.safetensors")
    manifest = pd.read_parquet(artifacts["manifest"])
    found = features.draw_features(encoder, manifest, artifacts["shards"])
    assert found.faces == 18
    for shown in (found.typical, found.unusual):
        people = [title.partition("/")[0] for _, title in shown]
        assert len(set(people)) == len(people) == 3
        assert set(people) <= {f"p{person:02d}" for person in range(6, 12)}
    near, far = (
        [float(title.rpartition(" ")[2]) for _, title in shown] for shown in (found.typical, found.unusual)
    )
    assert sorted(near) == near
    assert sorted(far, reverse=True) == far
    assert near[0] < far[0]
    assert found.drawing.count("<title>") == 18
    assert found == features.draw_features(encoder, manifest, artifacts["shards"])
    with pytest.raises(ValueError, match="Fewer than three"):
        features.draw_features(
            encoder, manifest[manifest["key"].isin(["p06/0", "p07/0"])], artifacts["shards"]
        )


def test_pictures_on_the_map_do_not_overlap() -> None:
    generator = np.random.default_rng(0)
    keys = [f"<{number}>" for number in range(80)]
    photographs = {key: np.zeros((20, 16, 3), np.uint8) for key in keys}
    drawing = features.draw_map(generator.normal(size=(80, 2)), keys, photographs)
    places = np.array(re.findall(r'<image [^>]*?x="(-?\d+)" y="(-?\d+)"', drawing), float)
    assert 10 < len(places) < 80
    apart = np.abs(places[:, None] - places).max(axis=2) + 1000 * np.eye(len(places))
    assert apart.min() >= features.THUMBNAIL - 1  # positions are rounded
    assert drawing.count("<circle") == 80 - len(places)
    assert "&lt;0&gt;" in drawing
    assert "<0>" not in drawing
