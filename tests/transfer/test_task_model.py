"""Task models: fitted as in the evaluation, stored in one file, and the same predictions in another process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from support.labelled_set import LABELS, Set, evaluated, run
from support.workspace import environment

import fra
from fra.transfer import heads, task_model
from fra.transfer.config import FinetuneConfig, TransferConfig
from fra.transfer.tasks.truths import directions
from fra.weights.files import read_weights, save_weights
from fra.weights.pretrained import load

RECIPE = FinetuneConfig(epochs=2, warmup_epochs=1, batch_size=32)
FEW_FITS = [("expression", "linear"), ("gaze", "linear"), ("alignment", "finetune")]
OTHER_FITS = [
    ("attributes", "linear"),
    ("alignment", "linear"),
    ("action_units", "linear"),
    ("expression", "finetune"),
]
PREDICT = """
import sys, fra, pandas as pd
manifest, *models = sys.argv[1:]
frame = pd.read_parquet(manifest)
images = [f"{manifest.rpartition('/')[0]}/{key}.png" for key in frame["key"]]
points = [row.reshape(-1, 2) for row in frame["landmarks"]]
for model in models:
    table = fra.load_task(model).predict(images, landmarks=points, batch_size=50)
    table.assign(key=frame["key"]).to_parquet(f"{model}.parquet")
"""


def settings(faces: Set, **changed: Any) -> TransferConfig:
    cache = str(faces.manifest.parent / "cache")
    return TransferConfig(**{"labels": LABELS, "cache": cache, "finetune": RECIPE} | changed)


def fit(faces: Set, task: str, protocol: str = "linear", **options: Any) -> Any:
    config = options.pop("config", settings(faces))
    backbone = options.pop("backbone", faces.backbone)
    return task_model.fit(
        task, protocol, config, faces.manifest, faces.shards, backbone, frozenset(), **options
    )


@pytest.mark.parametrize("fits", [FEW_FITS, pytest.param(OTHER_FITS, marks=pytest.mark.slow)])
def test_a_fresh_process_gives_the_stored_predictions(
    fits: list[tuple[str, str]], faces: Set, tmp_path: Path
) -> None:
    """To 1e-6: probabilities, coordinates in pixels, and directions; the images are read from files.

    The model is made of the evaluation's own fit, as stage transfer does; `fra transfer fit` gives the same.
    """
    stored, files = {}, {}
    for task, protocol in fits:
        name = f"{task}-{protocol}"
        settings_ = settings(faces, protocols=(protocol,), seeds=1, model_protocol=protocol)
        done = evaluated(task, faces, tmp_path / name, **asdict(settings_) | {"finetune": RECIPE})
        predictions = pd.read_parquet(tmp_path / name / "predictions.parquet")
        stored[name] = predictions[predictions["model"] == "pretrained"].reset_index(drop=True)
        assert done.fit is not None
        files[name] = tmp_path / f"{name}.safetensors"
        task_model.save(task_model.from_fit(task, done.fit, settings_), files[name])
        if protocol == "linear":
            refitted = fit(faces, task)[1].reset_index(drop=True)
            pd.testing.assert_frame_equal(refitted, stored[name][refitted.columns], check_dtype=False)
    command = [sys.executable, "-c", PREDICT, str(faces.manifest), *map(str, files.values())]
    subprocess.run(command, check=True, env=environment())
    for name, file in files.items():
        metadata = fra.load_task(file).metadata
        table = pd.read_parquet(f"{file}.parquet").set_index("key")
        outputs = table[metadata["columns"]]
        if metadata["task"] == "gaze":
            pitch_yaw = outputs.set_axis(["measure.pitch", "measure.yaw"], axis=1)
            outputs = directions(pitch_yaw, ("pitch", "yaw"))
        outputs = outputs.set_axis(metadata["outputs"], axis=1)
        rows = stored[name]
        found = outputs.stack().loc[list(zip(rows["key"], rows["output"], strict=True))].to_numpy()
        wanted = rows["score"].where(rows["score"].notna(), rows["prediction"]).to_numpy()
        if metadata["task"] == "gaze":  # the table gives directions, of length 1
            wanted = (wanted.reshape(-1, 3) / np.linalg.norm(wanted.reshape(-1, 3), axis=1)[:, None]).ravel()
        assert np.abs(found - wanted).max() < 1e-6 * max(1, np.abs(wanted).max()), name


def test_metrics_and_choice_are_stored(faces: Set, tmp_path: Path) -> None:
    summary = run("expression", faces, tmp_path / "evaluation", seeds=1)
    model, _ = fit(faces, "expression", provenance={"inputs": {"manifest": "1a"}})
    task_model.save(model, tmp_path / "smile.safetensors")
    metadata = task_model.load(tmp_path / "smile.safetensors").metadata
    metrics = {name: value["mean"] for name, value in summary["pretrained"].items()}
    assert metadata["metrics"] == pytest.approx(metrics)
    assert metadata["choice"]["inverse_penalty"] in heads.SOFTMAX.grid
    assert metadata["test"] == {"images": summary["test"]["images"], "people": 5}
    assert metadata["provenance"] == {"inputs": {"manifest": "1a"}}
    assert metadata["columns"] == ["Smiling=0", "Smiling=1"]
    assert metadata["crop"] == "eyes_and_mouth"
    assert 1 <= fit(faces, "expression", "finetune")[0].metadata["choice"]["epoch"] <= 2


def test_classes_can_be_named(faces: Set) -> None:
    assert fit(faces, "expression", classes=["neutral", "smiling"])[0].metadata["columns"] == [
        "neutral",
        "smiling",
    ]
    with pytest.raises(ValueError, match=r"2 classes \(Smiling: 0, 1\): name each of them once.*not neutral"):
        fit(faces, "expression", classes=["neutral"])
    with pytest.raises(ValueError, match="attributes has no classes to name"):
        fit(faces, "attributes", classes=["a"])
    with pytest.raises(ValueError, match="cannot be named 'face'"):
        fit(faces, "expression", classes=["face", "no face"])
    assert task_model.column_names("attributes", ["score", "b"], [], []) == ["label.score", "b"]


def test_verification_stores_the_backbone_that_was_compared(faces: Set, tmp_path: Path) -> None:
    done = evaluated("verification", faces, tmp_path / "out", seeds=2)
    assert done.fit is not None
    task_model.save(
        task_model.from_fit("verification", done.fit, settings(faces)), tmp_path / "a.safetensors"
    )
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    encoder = fra.load(tmp_path / "a.safetensors")
    assert torch.equal(encoder.embed(images), fra.load(faces.backbone).embed(images))
    results = pd.read_csv(tmp_path / "out/results.csv")
    mine = results[(results["model"] == "pretrained") & (results["seed"] == 0)].set_index("metric")["value"]
    assert encoder.metadata["metrics"]["roc_auc"] == pytest.approx(mine["roc_auc"])
    assert encoder.metadata["test"]["people"] == 5
    with pytest.raises(
        ValueError, match="without the head of a task; verification compares embeddings: `fra embed"
    ):
        fra.load_task(tmp_path / "a.safetensors")


def test_what_was_not_evaluated_gives_no_fit(faces: Set, tmp_path: Path) -> None:
    assert evaluated("expression", faces, tmp_path, seeds=1, protocols=("knn",)).fit is None
    assert evaluated("expression", faces, tmp_path, seeds=1, fractions=(0.5,)).fit is None


def test_what_has_no_head_is_refused(faces: Set) -> None:
    with pytest.raises(
        ValueError, match="verification compares the embeddings of two images and fits no head"
    ):
        fit(faces, "verification")
    with pytest.raises(
        ValueError, match=r"'knn': k-NN compares with all training images .* choose linear or finetune"
    ):
        fit(faces, "expression", "knn")
    with pytest.raises(ValueError, match="no task 'smile'; the tasks are: expression, "):
        fit(faces, "smile")


def test_other_files_are_refused(faces: Set, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a backbone without the head of a task; `fra transfer fit`"):
        fra.load_task(faces.backbone)
    model, _ = fit(faces, "expression")
    task_model.save(model, tmp_path / "smile.safetensors")
    weights, metadata = read_weights(tmp_path / "smile.safetensors")
    weights.pop("head.bias")
    save_weights(tmp_path / "part.safetensors", weights, metadata)
    with pytest.raises(
        ValueError, match=r"part\.safetensors: not a complete task model \('head\.bias' is missing"
    ):
        fra.load_task(tmp_path / "part.safetensors")
    save_weights(tmp_path / "other.safetensors", weights, metadata | {"contents": "poem"})
    with pytest.raises(ValueError, match="holds 'poem', which is none of: backbone, model, task"):
        fra.load_task(tmp_path / "other.safetensors")


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_a_task_model_is_a_backbone_too(protocol: str, faces: Set, tmp_path: Path) -> None:
    """Other commands read its backbone: the pre-trained one, or the fine-tuned one."""
    model, _ = fit(faces, "expression", protocol)
    file = tmp_path / "smile.safetensors"
    task_model.save(model, file)
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    same = torch.equal(fra.load(file).embed(images), fra.load(faces.backbone).embed(images))
    assert same == (protocol == "linear")
    again, _ = fit(faces, "attributes", backbone=file)
    assert again.metadata["image_size"] == 32
    assert all(
        torch.equal(value, again.backbone.state_dict()[name])
        for name, value in load(file).backbone.state_dict().items()
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_head_is_scikit_learns_to_the_bit(classes: int) -> None:
    generator = np.random.default_rng(classes)
    x = generator.normal(size=(90, 12)).astype(np.float32) * 3 + 1
    label = generator.integers(classes, size=90)
    (head,) = heads.fit_softmax(x, np.eye(4)[label], (10.0,))
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=10 / 90, max_iter=1000).fit(scaler.transform(x), label)
    wanted = np.zeros((90, 4))
    wanted[:, :classes] = model.predict_proba(scaler.transform(x))
    assert np.array_equal(head(x), wanted)
