from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fra
from fra.inference.drawing import assign, shares
from fra.inference.export import export
from fra.inference.heatmaps import TILE, draw


def test_sheet_of_faces_and_regions(faces: Path, model: Path, tmp_path: Path) -> None:
    share, skipped = draw(model, [str(faces)], tmp_path / "regions.png", limit=6)
    heatmaps = fra.load(model).heatmaps(sorted((faces / "a").iterdir())[:6])  # images at the model's own size
    labels = np.stack([assign(one, TILE, TILE) for one in heatmaps])
    assert share == pytest.approx(shares(labels, 4), abs=1e-9)
    assert skipped.unreadable == {}
    image = np.asarray(Image.open(tmp_path / "regions.png").convert("RGB"))
    assert image.shape[1] > 4 * 2 * 160  # four faces a row, each next to its regions
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_backbone_without_regions_names_the_file_to_load(faces: Path, model: Path, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.safetensors"
    export(model, "safetensors", backbone)
    with pytest.raises(RuntimeError, match=r"load model\.safetensors, not backbone\.safetensors"):
        draw(backbone, [str(faces)], tmp_path / "regions.png")
    assert not (tmp_path / "regions.png").exists()


def test_wrong_paths_are_refused_before_the_model_is_loaded(faces: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(ValueError, match=r"regions\.jpg: the output file must end in \.png"):
        draw(missing, [str(faces)], tmp_path / "regions.jpg")
    with pytest.raises(FileNotFoundError, match="nothing: no such file or folder"):
        draw(missing, [str(tmp_path / "nothing")], tmp_path / "regions.png")
