"""Each task end to end on a miniature set; nothing leaks; every figure can be recomputed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fra.transfer.evaluate import TransferConfig, evaluate, read_manifest, recompute, results
from fra.transfer.tasks import TASKS

from .conftest import Set

LABELS = {"attributes": ("Smiling", "Eyeglasses")}


def run(task: str, faces: Set, out: Path, manifest: Path | None = None, **settings: Any) -> dict[str, Any]:
    cache = str(faces.manifest.parent / "cache")
    config = TransferConfig(**{"seeds": 2, "labels": LABELS.get(task, ()), "cache": cache} | settings)
    return evaluate(task, config, manifest or faces.manifest, faces.shards, faces.backbone, out)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_writes_figures_that_its_predictions_give(task: str, faces: Set, tmp_path: Path) -> None:
    summary = run(task, faces, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == summary == recompute(task, tmp_path)
    assert set(summary) == {"pretrained", "random", "test"}
    assert set(summary["pretrained"]) == set(summary["random"])
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    assert predictions.groupby(["seed", "model"]).ngroups == 4
    asked = set(predictions["key"]) | set(predictions.get("other", []))
    manifest = read_manifest(faces.manifest)
    assert asked <= set(manifest.loc[manifest["split"] == "test", "key"])
    assert predictions[["truth", "prediction"]].notna().all().all()


def test_a_task_runs_the_same_twice_and_does_not_compute_features_again(faces: Set, tmp_path: Path) -> None:
    run("expression", faces, tmp_path / "a")
    cache = faces.manifest.parent / "cache"
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    run("expression", faces, tmp_path / "b")
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    first, second = ((tmp_path / run / "predictions.parquet").read_bytes() for run in "ab")
    assert first == second


def test_what_a_feature_map_shows_is_learnt(faces: Set, tmp_path: Path) -> None:
    """The mouth's brightness and the template's place survive even random convolutions."""
    alignment = run("alignment", faces, tmp_path)["pretrained"]["nme"]["mean"]
    everyone = pd.read_parquet(faces.manifest)
    points = np.stack(everyone["landmarks"].to_list()).reshape(-1, 68, 2)
    constant = np.linalg.norm(points - points.mean(axis=0), axis=-1).mean() / 18
    assert alignment < 0.6 * constant


def test_missing_labels_are_left_out(faces: Set, tmp_path: Path) -> None:
    run("attributes", faces, tmp_path)
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    counts = predictions[(predictions["seed"] == 0) & (predictions["model"] == "random")][
        "output"
    ].value_counts()
    assert counts["Eyeglasses"] == 40
    assert counts["Smiling"] == 39  # of person 16 one is unknown


def test_protocols_and_fractions_are_all_reported(faces: Set, tmp_path: Path) -> None:
    run("expression", faces, tmp_path, protocols=("knn", "linear"), fractions=(0.2, 1.0))
    table = results("expression", pd.read_parquet(tmp_path / "predictions.parquet"))
    assert table.groupby(["protocol", "fraction", "seed", "model"]).ngroups == 2 * 2 * 2 * 2
    headline = table.query(
        "protocol == 'knn' and fraction == 1 and model == 'random' and metric == 'accuracy'"
    )
    summary = recompute("expression", tmp_path)
    assert summary["random"]["accuracy"]["mean"] == pytest.approx(headline["value"].mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(split=f["split"].replace("val", "train")), "no image in split 'val'"),
        (lambda f: f.assign(person="p00"), "person 'p00' is in 3 splits"),
        (lambda f: f.drop(columns="label.Smiling"), "no label 'Smiling'; it has: Eyeglasses"),
    ],
)
def test_a_manifest_that_does_not_fit_is_explained(
    change: Any, message: str, faces: Set, tmp_path: Path
) -> None:
    change(pd.read_parquet(faces.manifest)).to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(ValueError, match=message):
        run("expression", faces, tmp_path, manifest=tmp_path / "manifest.parquet")


def test_other_mistakes_are_explained(faces: Set, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no task 'age'"):
        run("age", faces, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet: no such manifest"):
        run("expression", faces, tmp_path, manifest=tmp_path / "absent.parquet")
    with pytest.raises(ValueError, match="'svm' is not known; choose of knn, linear"):
        TransferConfig(protocols=("svm",))
    with pytest.raises(ValueError, match="1.5 is not in"):
        TransferConfig(fractions=(1.5,))
