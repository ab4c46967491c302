from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

import fra
from fra.inference.encoder import FaceEncoder
from fra.inference.export import export
from fra.inference.image_files import Unread, batches
from fra.method.backbone import build
from fra.weights.files import save_weights

from .conftest import SAYS


def encoder_of(backbone: str, folder: Path) -> FaceEncoder:
    torch.manual_seed(0)
    path = folder / "backbone.safetensors"
    made = build(backbone).eval()
    save_weights(path, made.state_dict(), {"contents": "backbone", "backbone": backbone, **SAYS})
    return fra.load(path)


def pixels_of(faces: Path) -> torch.Tensor:
    return next(batches([str(faces)], 64, 20, Unread())).pixels_N3HW


def test_onnx_and_the_program_agree_on_twenty_faces(faces: Path, model: Path, tmp_path: Path) -> None:
    import onnxruntime

    encoder, pixels = fra.load(model), pixels_of(faces)
    expected = encoder.embed(pixels).numpy()
    assert len(expected) == 20
    inputs = pixels.float() / 255
    export(encoder, "onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"images": inputs.numpy()})[0], expected, atol=1e-4)
    export(encoder, "program", tmp_path / "model.pt2")
    with torch.inference_mode():
        found = torch.export.load(tmp_path / "model.pt2").module()(inputs)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_torchvision_takes_its_weights(faces: Path, tmp_path: Path) -> None:
    encoder = encoder_of("resnet18", tmp_path)
    says = export(encoder, "torchvision", tmp_path / "resnet18.pth")
    theirs = torchvision.models.resnet18()
    missing = theirs.load_state_dict(torch.load(tmp_path / "resnet18.pth", weights_only=True), strict=False)
    assert set(missing.missing_keys) == {"fc.weight", "fc.bias"}
    assert missing.unexpected_keys == []
    theirs.fc = torch.nn.Identity()
    pixels = pixels_of(faces)
    mean, std = (torch.tensor(SAYS[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        found = theirs.eval()((pixels.float() / 255 - mean) / std)
    torch.testing.assert_close(found, encoder.embed(pixels), atol=1e-4, rtol=0)
    assert "[0.5, 0.4, 0.3]" in says


@pytest.mark.parametrize("name", ["resnet18", "timm:convnext_atto", "timm:vit_tiny_patch16_224"])
def test_timm_takes_its_weights(name: str, tmp_path: Path) -> None:
    says = export(encoder_of(name, tmp_path), "timm", tmp_path / "weights.safetensors")
    assert f'create_model("{name.removeprefix("timm:")}"' in says
    assert len(load_file(tmp_path / "weights.safetensors")) > 50


def test_what_cannot_be_exported_leaves_nothing(model: Path, tmp_path: Path) -> None:
    for form, message in {"torchvision": "torchvision has no 'small'", "gif": "choose one of"}.items():
        with pytest.raises(ValueError, match=message):
            export(fra.load(model), form, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
