from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from support.task_models import ALIGNED, LANDMARKS, predictor, saved

import fra
from fra.inference import Form
from fra.inference.export import FORMS, export
from fra.inference.image_files import Skipped, batches
from fra.inference.network import averages, network_of
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


@pytest.mark.parametrize("form", ["onnx", pytest.param("program", marks=pytest.mark.slow), "safetensors"])
def test_recipe_gives_the_embeddings_of_twenty_faces(
    form: str, faces: Path, model: Path, tmp_path: Path
) -> None:
    """Whatever characters the path has."""
    out = tmp_path / "ex\"por'ted\\n"
    check_recipe(export(model, form, out), model, pixels_of(faces))


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


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=pytest.mark.slow if BACKBONES[name] > 100 else ()) for name in BACKBONES],
)
def test_timm_recipe_gives_the_embeddings(backbone: str, faces: Path, tmp_path: Path) -> None:
    size = BACKBONES[backbone]
    weights = weights_of(backbone, tmp_path, size)
    recipe = export(weights, "timm", tmp_path / "weights.safetensors")
    assert f"create_model({backbone.removeprefix('timm:')!r}" in recipe
    assert len(load_file(tmp_path / "weights.safetensors")) > 50
    check_recipe(recipe, weights, pixels_of(faces, size)[:3])


@pytest.mark.slow
def test_a_recipe_runs_in_a_fresh_process(model: Path, tmp_path: Path) -> None:
    recipe = export(model, "program", tmp_path / "model.pt2")
    program = f"import torch\nimages = torch.zeros(2, 3, 64, 64)\n{recipe}\nprint(tuple(embeddings.shape))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 256)"


TASK_MODELS = {
    "expression": ["neutral", "smiling", "surprised"],
    "attributes": ["Smiling", "Eyeglasses"],
    "alignment": LANDMARKS,
    "gaze": ["gaze_pitch", "gaze_yaw"],
}


QUICK = ("alignment", "linear")


@pytest.mark.parametrize(
    ("task", "protocol"),
    [
        pytest.param(task, protocol, marks=() if (task, protocol) == QUICK else pytest.mark.slow)
        for task in TASK_MODELS
        for protocol in ("linear", "finetune")
    ],
)
def test_onnx_of_a_task_model_gives_the_predictions(
    task: str, protocol: str, faces: Path, tmp_path: Path
) -> None:
    """At batch 1 and 7, on twenty faces; coordinates are fractions of the image's sides."""
    model = predictor(task, TASK_MODELS[task], ALIGNED, "eyes_and_mouth", protocol)
    recipe = export(saved(model, tmp_path), "onnx", tmp_path / "model.onnx")
    assert ", ".join(TASK_MODELS[task]) in recipe
    pixels = pixels_of(faces)
    expected = model.predict(pixels).to_numpy() / (64 if task == "alignment" else 1)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        parts = [
            session.run(["outputs"], {"images": part.float().numpy() / 255})[0]
            for part in pixels.split(batch)
        ]
        limit = 1e-4 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=limit)
    stated = {
        key.removeprefix("fra."): value for key, value in session.get_modelmeta().custom_metadata_map.items()
    }
    assert json.loads(stated["output"])["columns"] == TASK_MODELS[task]
    assert json.loads(stated["input"])["mean"] == [0.5] * 3
    assert json.loads(stated["crop"]) == {
        "faces": "one upright face per image, as in the training set",
        "aligned": "eyes_and_mouth",
        "framing": ALIGNED,
    }
    assert stated["task"] == task


def test_program_has_the_head_and_other_formats_have_the_backbone(faces: Path, tmp_path: Path) -> None:
    model = predictor("expression", ["neutral", "smiling"])
    file, pixels = saved(model, tmp_path), pixels_of(faces)
    names: dict[str, object] = {"images": pixels.float() / 255}
    exec(export(file, "program", tmp_path / "model.pt2"), names)
    found = torch.as_tensor(names["outputs"]).detach().numpy()
    np.testing.assert_allclose(found, model.predict(pixels).to_numpy(), atol=1e-4)
    check_recipe(export(file, "safetensors", tmp_path / "backbone.safetensors"), file, pixels)


@pytest.mark.parametrize(("length", "cells"), [(14, 8), (7, 7), (5, 2), (6, 1)])
def test_averages_are_adaptive_pooling(length: int, cells: int) -> None:
    x = torch.rand(3, length)
    torch.testing.assert_close(
        x @ averages(length, cells).T, torch.nn.functional.adaptive_avg_pool1d(x, cells)
    )


def test_outputs_that_training_did_not_vary_are_constant(faces: Path) -> None:
    """A class without examples has probability 0; a label with one value in training is that value."""
    pixels = pixels_of(faces)[:3]
    for fitted, constant in (([0, 2], [0.0, 0.0, 0.0]), ([], [0.25, 1.0, 0.0])):
        model = predictor("expression", ["a", "b", "c"]).model
        head = model.head
        weight, bias = head.weight_FD[: len(fitted)], head.bias_F[: len(fitted)]
        model.head = replace(
            head, weight_FD=weight, bias_F=bias, fitted_S=np.array(fitted, int), constant_O=np.array(constant)
        )
        found = network_of(model)(pixels.float() / 255).detach().numpy()
        np.testing.assert_allclose(found, model.scores(pixels.permute(0, 2, 3, 1).numpy()), atol=1e-5)


def test_the_command_lists_every_format() -> None:
    assert get_args(Form) == (*FORMS, "huggingface")


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


def test_a_backbone_whose_name_is_code_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    name = 'resnet18"); print("'
    save_weights(weights, {"a": torch.zeros(1)}, {"contents": "backbone", "backbone": name, **METADATA})
    with pytest.raises(ValueError, match=r"its backbone .* is no name of an architecture"):
        export(weights, "timm", tmp_path / "out")


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
