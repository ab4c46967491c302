from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fra
from fra.inference.export import export
from fra.inference.heatmaps import picture


def test_a_picture_of_regions(faces: Path, model: Path, tmp_path: Path) -> None:
    encoder = fra.load(model)
    share, unread = picture(encoder, [str(faces)], tmp_path / "regions.png", limit=6)
    assert share.sum() == pytest.approx(1)
    assert len(share) == 4
    assert unread.reasons == {}
    image = np.asarray(Image.open(tmp_path / "regions.png").convert("RGB"))
    assert image.shape[1] > 4 * 2 * 160  # four faces a row, each beside its regions
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_without_regions_it_says_what_to_load(faces: Path, model: Path, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.safetensors"
    export(fra.load(model), "safetensors", backbone)
    with pytest.raises(RuntimeError, match=r"load model\.safetensors, not backbone\.safetensors"):
        picture(fra.load(backbone), [str(faces)], tmp_path / "regions.png")
    assert not (tmp_path / "regions.png").exists()
