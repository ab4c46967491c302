from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fra
from fra.weights import pretrained, released


@pytest.mark.parametrize("name", released.names())
def test_released_weights_are_small_and_have_provenance(name: str) -> None:
    path = released.FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 25e6
    assert path.with_suffix(".md").is_file(), "a model card is missing"
    origin = fra.load(name).metadata["provenance"]
    assert origin["code"]["commit"]
    assert origin["params"]["train"]["seed"] == 0
    assert all(len(digest) == 64 for digest in origin["inputs"].values())


def test_demo_weights_embed_and_give_heatmaps() -> None:
    encoder = fra.load("demo")
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (3, 80, 60, 3), dtype=np.uint8)
    embedded = encoder.embed(list(noise))
    assert embedded.shape == (3, encoder.feature_dim)
    assert embedded.isfinite().all()
    heat_NKHW = encoder.heatmaps(list(noise))
    torch.testing.assert_close(heat_NKHW.sum(1), torch.ones_like(heat_NKHW[:, 0]), atol=1e-4, rtol=0)


def test_backbone_of_a_model_file_is_that_of_the_encoder() -> None:
    backbone = pretrained.load(Path("demo")).backbone.state_dict()
    whole = fra.load("demo").backbone.state_dict()
    assert backbone.keys() == whole.keys()
    assert all(torch.equal(backbone[name], whole[name]) for name in whole)


def test_existing_file_has_precedence_over_a_released_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert released.find("demo") == released.FOLDER / "demo.safetensors"
    assert released.find("other") == Path("other")
    Path("demo").write_bytes(b"mine")
    assert released.find("demo") == Path("demo")


def test_unknown_name_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match="nobody"):
        fra.load("nobody")
