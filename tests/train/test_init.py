"""Pre-training that starts from existing weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.toy_training import MODEL, run

from fra.method.backbone import build as build_backbone
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import FRA, build
from fra.train.init import initialise
from fra.weights.files import read_weights, save_weights


def networks(config: ModelConfig = MODEL, seed: int = 7) -> FRA:
    torch.manual_seed(seed)
    return build(config, ObjectiveConfig())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(folder, epochs=1)
    return folder / "out"


def test_a_whole_model_is_continued_with_its_heads_and_predictors(trained: Path) -> None:
    model = networks()
    report = initialise(model, MODEL, str(trained / "model.safetensors"))
    assert report.new == ""
    stored, _ = read_weights(trained / "model.safetensors")
    own = {**model.online.state_dict(), **model.state_dict()}
    assert [name for name, value in stored.items() if not torch.equal(own[name], value)] == []
    assert report.matched == len(stored)
    target = model.target.state_dict()
    assert [
        name for name, value in model.online.state_dict().items() if not torch.equal(target[name], value)
    ] == []


def test_heads_stay_random_where_the_file_has_none(trained: Path) -> None:
    model, fresh = networks(), networks()
    report = initialise(model, MODEL, str(trained / "backbone.safetensors"))
    assert (report.new, report.reason) == ("heads", "the file has none")
    stored, _ = read_weights(trained / "backbone.safetensors")
    for network in (model.online, model.target):
        backbone = network.backbone.state_dict()
        assert [name for name, value in stored.items() if not torch.equal(backbone[name], value)] == []
    assert torch.equal(model.online.region_neck.masks_KD, fresh.online.region_neck.masks_KD)


def test_the_backbone_of_a_task_model_is_a_start(trained: Path, tmp_path: Path) -> None:
    weights, metadata = read_weights(trained / "backbone.safetensors")
    stored = {f"backbone.{name}": value for name, value in weights.items()} | {"head.bias": torch.ones(2)}
    task = {"contents": "task", "task": "expression", "protocol": "linear", "crop": "none", "framing": None}
    save_weights(
        tmp_path / "smile.safetensors",
        stored,
        metadata | task | {"outputs": ["0", "1"], "columns": ["0", "1"]},
    )
    model = networks()
    report = initialise(model, MODEL, str(tmp_path / "smile.safetensors"))
    assert (report.matched, report.new) == (len(weights), "heads")
    own = model.online.backbone.state_dict()
    assert [name for name, value in weights.items() if not torch.equal(own[name], value)] == []


def test_heads_of_other_sizes_are_new_and_the_parameter_is_named(trained: Path) -> None:
    config = ModelConfig("small", num_masks=5, projection_dim=16, hidden_dim=32)
    report = initialise(networks(config), config, str(trained / "model.safetensors"))
    assert (report.new, report.reason) == ("heads", "model.num_masks is 5, in the file 3")


def test_another_backbone_is_refused(trained: Path) -> None:
    config = ModelConfig("mini", num_masks=3, projection_dim=16, hidden_dim=32)
    with pytest.raises(
        ValueError, match=r"holds the backbone small, model\.backbone is mini: set model\.backbone=small"
    ):
        initialise(networks(config), config, str(trained / "model.safetensors"))
    with pytest.raises(
        FileNotFoundError, match=r"nothing: no such weights file \(released weights: demo, demo-48\)"
    ):
        initialise(networks(), MODEL, "nothing")


def test_released_weights_are_found_by_name() -> None:
    config = ModelConfig("mini", num_masks=8, projection_dim=64, hidden_dim=256)
    report = initialise(networks(config), config, "demo")
    assert report.layout == "FRA, this project"
    assert report.matched > 50


@pytest.mark.parametrize(
    "name", ["convnext_atto", "vit_tiny_patch16_224", "efficientnet_b0", "mobilevit_xxs"]
)
def test_a_model_of_timm_gives_its_own_features(name: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False).eval()
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    config = ModelConfig(f"timm:{name}", num_masks=3, projection_dim=16, hidden_dim=32)
    model = networks(config)
    report = initialise(model, config, str(tmp_path / "timm.safetensors"))
    assert report.layout == "timm"
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.forward_intermediates(images, indices=1, norm=False, intermediates_only=True)[-1]
        found = model.online.backbone.eval()(images)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_model_of_torchvision_gives_its_own_features(tmp_path: Path) -> None:
    import torchvision

    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    config = ModelConfig("resnet18", num_masks=3, projection_dim=16, hidden_dim=32)
    model = networks(config)
    assert initialise(model, config, str(tmp_path / "resnet.pth")).layout == "torchvision"
    pooled = torchvision.models.feature_extraction.create_feature_extractor(theirs, ["layer4"])
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = pooled(images)["layer4"]
        assert torch.allclose(model.online.backbone.eval()(images), expected, atol=1e-5)


def test_a_mismatch_names_both_shapes(tmp_path: Path) -> None:
    weights = build_backbone("resnet18").state_dict()
    weights["layer4.1.conv2.weight"] = torch.zeros(7, 512, 3, 3)
    torch.save(weights, tmp_path / "wrong.pth")
    config = ModelConfig("resnet18", num_masks=3, projection_dim=16, hidden_dim=32)
    with pytest.raises(
        ValueError, match=r"conv2\.weight is \(7, 512, 3, 3\), in resnet18 it is \(512, 512, 3, 3\)"
    ):
        initialise(networks(config), config, str(tmp_path / "wrong.pth"))


def test_messages_name_parameters_and_no_options_of_the_command(tmp_path: Path) -> None:
    """Of a file of another architecture, of a vision transformer for a ResNet, and of unknown names."""
    config = ModelConfig(backbone="resnet18", hidden_dim=8, projection_dim=8)
    weights = build_backbone("resnet18").state_dict()
    cases = {
        "part": ({"conv1.weight": weights["conv1.weight"]}, "set model.backbone to its architecture"),
        "vit": (build_backbone("timm:test_vit").trunk.model.state_dict(), "set model.backbone"),
        "prefix": (
            {f"net.{name}": value for name, value in weights.items()},
            "Set `fra import-weights --prefix`",
        ),
    }
    for name, (tensors, message) in cases.items():
        save_file(
            {key: value.contiguous() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors"
        )
        with pytest.raises(ValueError, match=message) as refused:
            initialise(networks(config), config, str(tmp_path / f"{name}.safetensors"))
        assert "--backbone" not in str(refused.value)


def backbone(folder: Path) -> dict[str, torch.Tensor]:
    weights = read_weights(folder / "out" / "backbone.safetensors")[0]
    return {name: value for name, value in weights.items() if "running" not in name and "tracked" not in name}


@pytest.mark.parametrize("optimizer", ["lars", pytest.param("adamw", marks=pytest.mark.slow)])
def test_the_backbone_is_frozen_while_new_heads_warm_up(
    trained: Path, tmp_path: Path, optimizer: str
) -> None:
    options: dict[str, Any] = {
        "init": str(trained / "backbone.safetensors"),
        "optimizer": optimizer,
        "lr": 0.01,
        "epochs": 2,
        "warmup_epochs": 0,
    }
    run(tmp_path / "frozen", **options, init_warmup_epochs=2)
    start = {
        name: read_weights(trained / "backbone.safetensors")[0][name]
        for name in backbone(tmp_path / "frozen")
    }
    assert [
        name for name, value in backbone(tmp_path / "frozen").items() if not torch.equal(value, start[name])
    ] == []
    run(tmp_path / "thawed", **options, init_warmup_epochs=1)
    assert [
        name for name, value in backbone(tmp_path / "thawed").items() if torch.equal(value, start[name])
    ] == []


def test_provenance_names_the_weights(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(tmp_path, epochs=1, init=str(trained / "model.safetensors"), mask_init="clusters")
    metadata = read_weights(tmp_path / "out" / "model.safetensors")[1]
    assert metadata["provenance"]["init"]["source"] == "model.safetensors"  # without its folder
    assert len(metadata["provenance"]["init"]["sha256"]) == 64
    assert "tensors" in caplog.text
    assert "train.mask_init=clusters is not used" in caplog.text


def test_masks_start_at_clusters_after_epochs_at_image_level(trained: Path, tmp_path: Path) -> None:
    """The masks of `train.init` no longer fit the features by then."""
    late = {"epochs": 2, "init": str(trained / "model.safetensors"), "region_start_epoch": 1}
    for start in ("clusters", "random"):
        run(tmp_path / start, mask_init=start, **late)
    one, other = (
        read_weights(tmp_path / start / "out" / "model.safetensors")[0] for start in ("clusters", "random")
    )
    assert any(not torch.equal(one[name], other[name]) for name in one)
