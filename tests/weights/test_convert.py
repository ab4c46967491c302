"""Published checkpoints are read without executing them, recognised by their names, and used as baselines."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from support.labelled_set import Set, run
from torch import Tensor
from typer.testing import CliRunner

import fra
from fra.method.backbone import build
from fra.weights import pretrained
from fra.weights.convert import import_weights
from fra.weights.files import read_weights
from pipelines.cli.main import app


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    """A torchvision ResNet-18's weights, classifier and all, with batch statistics that are not the initial ones."""
    torch.manual_seed(3)
    weights = torchvision.models.resnet18(weights=None).state_dict()
    return {
        name: value + torch.rand_like(value) if "running" in name else value
        for name, value in weights.items()
    }


def body(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


def official(weights: dict[str, Tensor]) -> dict[str, Any]:
    """As FRA's main.py saves it: both networks below DistributedDataParallel, an optimiser, a numpy accuracy."""
    networks = {
        f"module.{network}.backbone.{name}": value + (network == "target_net")
        for network in ("online_net", "target_net")
        for name, value in body(weights).items()
    }
    neck = {"module.online_net.neck.proj.mlp.0.weight": torch.zeros(4, 4), "module.center": torch.zeros(4)}
    rest = {
        "epoch": 50,
        "arch": "FRA",
        "best_acc1": np.float64(0.9),
        "optimizer": {"state": {}},
        "scaler": None,
    }
    return {"state_dict": networks | neck, **rest, "args": argparse.Namespace(lr=0.9)}


def bulat(weights: dict[str, Tensor]) -> dict[str, Any]:
    """As `flr_r50_vgg_face.pth`: below `module.base_net.`, with the projection used in pre-training."""
    names = {f"module.base_net.{name}": value for name, value in body(weights).items()}
    return {"state_dict": names | {"module.projection_head.0.weight": torch.zeros(2, 2)}}


CHECKPOINTS = {
    "official": (official, "FRA, official", 0.5231),
    "bulat": (bulat, "Bulat et al., flr_r50", 0.485),
    "torchvision": (lambda weights: weights, "torchvision", 0.485),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_each_layout_gives_the_features_of_its_backbone(
    kind: str, resnet: dict[str, Tensor], tmp_path: Path
) -> None:
    make, layout, mean = CHECKPOINTS[kind]
    torch.save(make(resnet), tmp_path / "theirs.pth")
    report = import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "resnet18", 64)
    assert (report.layout, report.missing) == (layout, [])
    assert set(report.matched) == set(build("resnet18").state_dict())
    assert all("online_net.backbone" not in name and name not in body(resnet) for name in report.left_over)
    weights, about = read_weights(tmp_path / "ours.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in body(resnet).items())
    assert (about["mean"][0], about["image_size"]) == (mean, 64)
    assert about["provenance"]["imported"] == "theirs.pth"
    whole = torchvision.models.resnet18(weights=None)
    whole.load_state_dict(resnet)
    whole.fc = torch.nn.Identity()
    encoder = pretrained.load(tmp_path / "ours.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert encoder.backbone(images).mean((2, 3)).numpy() == pytest.approx(
            whole.eval()(images).numpy(), abs=1e-5
        )
    assert fra.load(tmp_path / "ours.safetensors").embed(
        torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    ).shape == (1, 512)


def test_safetensors_old_files_half_precision_and_other_prefixes(
    resnet: dict[str, Tensor], tmp_path: Path
) -> None:
    old = {f"student.{name}": value for name, value in body(resnet).items() if "num_batches" not in name}
    save_file({name: value.half() for name, value in old.items()}, tmp_path / "theirs.safetensors")
    with pytest.raises(ValueError, match=r"no known layout.*Set --prefix to one of: 'student\.'"):
        import_weights(tmp_path / "theirs.safetensors", tmp_path / "o.safetensors", "resnet18")
    report = import_weights(
        tmp_path / "theirs.safetensors", tmp_path / "o.safetensors", "resnet18", prefix="student."
    )
    assert report.missing
    assert all(name.endswith("num_batches_tracked") for name in report.missing)
    weights, _ = read_weights(tmp_path / "o.safetensors")
    assert weights["conv1.weight"].dtype == torch.float32
    assert torch.equal(weights["conv1.weight"], resnet["conv1.weight"].half().float())


class Trap:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle"])
def test_code_in_a_checkpoint_is_not_executed(plain: bool, tmp_path: Path) -> None:
    file, folder = tmp_path / "trap.pth", tmp_path / "made"
    content = {"state_dict": {"conv1.weight": torch.zeros(1)}, "args": Trap(folder)}
    if plain:
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=r"trap\.pth: cannot be read without executing code"):
        import_weights(file, tmp_path / "o.safetensors")
    assert not folder.exists()
    assert not (tmp_path / "o.safetensors").exists()
    if not plain:
        torch.load(file, weights_only=False)
        assert folder.exists()  # the trap was real


def test_unsuitable_files_are_refused(resnet: dict[str, Tensor], tmp_path: Path) -> None:
    file, out = tmp_path / "theirs.pth", tmp_path / "o.safetensors"
    with pytest.raises(FileNotFoundError, match=r"theirs\.pth: no such checkpoint"):
        import_weights(file, out)
    torch.save(resnet, file)
    with pytest.raises(ValueError, match=r"lacks \d+ of \d+ weights of resnet34.*--backbone"):
        import_weights(file, out, "resnet34")
    torch.save(resnet | {"conv1.weight": torch.zeros(8, 3, 7, 7)}, file)
    with pytest.raises(
        ValueError, match=r"conv1\.weight is \(8, 3, 7, 7\), in resnet18 it is \(64, 3, 7, 7\)"
    ):
        import_weights(file, out, "resnet18")
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        import_weights(file, out)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        import_weights(file, out)


def test_prefix_is_taken_as_the_file_has_it(resnet: dict[str, Tensor], tmp_path: Path) -> None:
    """MoCo's names, with and without the prefix of DistributedDataParallel."""
    names = {f"module.encoder_q.{name}": value for name, value in body(resnet).items()}
    torch.save({"state_dict": names, "epoch": 200}, tmp_path / "moco.pth")
    for prefix in ("module.encoder_q.", "encoder_q."):
        report = import_weights(tmp_path / "moco.pth", tmp_path / "o.safetensors", "resnet18", prefix=prefix)
        assert report.missing == []
    with pytest.raises(ValueError, match=r"no weight 'encoder_k\.conv1\.weight'.*'module\.encoder_q\.'"):
        import_weights(tmp_path / "moco.pth", tmp_path / "o.safetensors", "resnet18", prefix="encoder_k.")


def test_networks_in_a_dictionary_are_offered(resnet: dict[str, Tensor], tmp_path: Path) -> None:
    """DINO's layout: two networks by name."""
    student = {f"module.backbone.{name}": value for name, value in body(resnet).items()}
    teacher = {f"backbone.{name}": value + 1 for name, value in body(resnet).items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 3}, tmp_path / "dino.pth")
    offer = r"Set --prefix to one of: 'student\.module\.backbone\.', 'teacher\.backbone\.'$"
    with pytest.raises(ValueError, match=offer):
        import_weights(tmp_path / "dino.pth", tmp_path / "o.safetensors", "resnet18")
    import_weights(tmp_path / "dino.pth", tmp_path / "o.safetensors", "resnet18", prefix="teacher.backbone.")
    weights, _ = read_weights(tmp_path / "o.safetensors")
    assert torch.equal(weights["conv1.weight"], resnet["conv1.weight"] + 1)


def test_damaged_files_are_called_damaged(resnet: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(body(resnet), tmp_path / "cut.safetensors")
    torch.save(resnet, tmp_path / "cut.pth")
    for name in ("cut.safetensors", "cut.pth"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=rf"{name}: .*truncated, damaged or of another format") as error:
            import_weights(tmp_path / name, tmp_path / "o.safetensors", "resnet18")
        assert "unknown origin" not in str(error.value)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"empty\.pth: holds no tensor \(found: 'epoch'\)"):
        import_weights(tmp_path / "empty.pth", tmp_path / "o.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    value: float, resnet: dict[str, Tensor], tmp_path: Path
) -> None:
    broken = resnet["layer1.0.conv1.weight"].clone()
    broken[0, 0, 0, 0] = value
    torch.save(resnet | {"layer1.0.conv1.weight": broken}, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=r"'layer1\.0\.conv1\.weight' has values that are not finite"):
        import_weights(tmp_path / "theirs.pth", tmp_path / "o.safetensors", "resnet18")
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [("", "is a folder"), ("o.pt", "must end in .safetensors"), ("f/o.safetensors", "f is not a folder")],
)
def test_output_is_checked_before_the_checkpoint_is_read(out: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "o.safetensors").mkdir()
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        import_weights(tmp_path / "no-such-checkpoint.pth", tmp_path / (out or "o.safetensors"))


def test_command_reports_matches_and_the_file_is_a_baseline(
    resnet: dict[str, Tensor], faces: Set, tmp_path: Path
) -> None:
    torch.save(official(resnet), tmp_path / "theirs.pth.tar")
    out = tmp_path / "baselines" / "official.safetensors"
    arguments = ["--backbone", "resnet18", "--image-size", "64"]
    done = CliRunner().invoke(
        app, ["import-weights", str(tmp_path / "theirs.pth.tar"), "-o", str(out), *arguments]
    )
    assert done.exit_code == 0, done.output
    assert "matched: 120 weights of the backbone" in done.output
    assert "missing: 0" in done.output
    assert "target_net.backbone: 120" in done.output
    summary = run("expression", faces, tmp_path / "out", baselines={"official": str(out)}, seeds=1)
    assert {"official", "pretrained - official"} <= set(summary)
