from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fra
from fra.inference.export import export
from fra.inference.image_files import Skipped, batches
from fra.method.backbone import build
from fra.weights.files import save_weights

from .conftest import METADATA


def weights_of(backbone: str, folder: Path, image_size: int = 64) -> Path:
    """A weights file of random weights whose norms are not the identity, so that a lost one is noticed."""
    torch.manual_seed(0)
    path, made = folder / "backbone.safetensors", build(backbone).eval()
    weights = {
        name: value + 0.1 * torch.rand_like(value) if value.is_floating_point() and value.ndim == 1 else value
        for name, value in made.state_dict().items()
    }
    metadata = {"contents": "backbone", "backbone": backbone, **METADATA, "image_size": image_size}
    save_weights(path, weights, metadata)
    return path


def pixels_of(faces: Path, size: int = 64) -> torch.Tensor:
    return next(batches([str(faces)], size, 20, Skipped())).pixels_N3HW


def check_recipe(recipe: str, weights: Path, pixels: torch.Tensor) -> None:
    """The printed lines, run on other images than those of the export's own check, give our embeddings."""
    names: dict[str, object] = {"images": pixels.float() / 255}
    exec(recipe, names)
    found = torch.as_tensor(names["embeddings"]).detach()
    expected = fra.load(weights).embed(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4 * max(1.0, float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize("form", ["onnx", "program", "safetensors"])
def test_recipe_gives_the_embeddings_of_twenty_faces(
    form: str, faces: Path, model: Path, tmp_path: Path
) -> None:
    check_recipe(export(model, form, tmp_path / "exported"), model, pixels_of(faces))


def test_torchvision_recipe_gives_the_embeddings(faces: Path, tmp_path: Path) -> None:
    weights = weights_of("resnet18", tmp_path)
    recipe = export(weights, "torchvision", tmp_path / "resnet18.pth")
    assert "[0.5, 0.4, 0.3]" in recipe
    check_recipe(recipe, weights, pixels_of(faces))


BACKBONES = {
    "resnet18": 64,
    "timm:convnext_atto": 64,  # a norm before its head is not part of our features
    "timm:vit_tiny_patch16_224": 64,  # at another size than its positions were made for
    "timm:deit_tiny_patch16_224": 96,
    "timm:mobilevit_xxs": 64,  # "vit" in its name, but no plain vision transformer
    "timm:efficientvit_b0": 64,
    "timm:fastvit_t8": 64,
    "timm:efficientnet_b0": 64,
    "timm:swin_tiny_patch4_window7_224": 224,  # channels come last
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_timm_recipe_gives_the_embeddings(backbone: str, faces: Path, tmp_path: Path) -> None:
    size = BACKBONES[backbone]
    weights = weights_of(backbone, tmp_path, size)
    recipe = export(weights, "timm", tmp_path / "weights.safetensors")
    assert f'create_model("{backbone.removeprefix("timm:")}"' in recipe
    assert len(load_file(tmp_path / "weights.safetensors")) > 50
    check_recipe(recipe, weights, pixels_of(faces, size)[:3])


def test_a_recipe_runs_in_a_fresh_process(model: Path, tmp_path: Path) -> None:
    recipe = export(model, "program", tmp_path / "model.pt2")
    program = f"import torch\nimages = torch.zeros(2, 3, 64, 64)\n{recipe}\nprint(tuple(embeddings.shape))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 256)"


def test_unsupported_exports_write_nothing(model: Path, tmp_path: Path) -> None:
    messages = {
        "torchvision": "torchvision has no 'small'",
        "timm": "timm has no 'small'",
        "gif": "choose one of",
    }
    for form, message in messages.items():
        with pytest.raises(ValueError, match=message):
            export(model, form, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_export_that_gives_other_embeddings_is_refused_by_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"an earlier file")
    monkeypatch.setattr("fra.inference.export.TOLERANCE", -1.0)
    with pytest.raises(ValueError, match=r"'small' cannot be exported to safetensors.* embeddings differ by"):
        export(model, "safetensors", out)
    assert out.read_bytes() == b"an earlier file"


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_a_wrong_output_path_is_refused_before_the_model_is_loaded(form: str, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export(tmp_path / "missing.safetensors", form, tmp_path)
    np.save(tmp_path / "file.npy", np.zeros(1))
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        export(tmp_path / "missing.safetensors", form, tmp_path / "file.npy" / "out")
