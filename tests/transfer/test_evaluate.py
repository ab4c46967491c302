"""Each task end to end on a miniature set; no leak; every metric can be recomputed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.labelled_set import Set, draw, run

from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.transfer.config import FinetuneConfig, TransferConfig
from fra.transfer.recompute import differences
from fra.transfer.results import TYPES
from fra.transfer.splits import read_manifest
from fra.transfer.tasks.table import TASKS
from fra.weights.files import read_weights, save_weights


@pytest.mark.parametrize("task", TASKS)
def test_each_task_writes_metrics_that_follow_from_its_predictions(
    task: str, faces: Set, tmp_path: Path
) -> None:
    summary = run(task, faces, tmp_path, groups={task: ("label.Eyeglasses",)})
    assert json.loads((tmp_path / "metrics.json").read_text()) == summary
    assert differences(task, tmp_path) == []
    assert set(summary) == {"pretrained", "random", "pretrained - random", "test"}
    assert set(summary["pretrained"]) == set(summary["random"])
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    assert predictions.groupby(["seed", "model"]).ngroups == 4
    keys = set(predictions["key"]) | set(predictions.get("other", []))
    manifest = read_manifest(faces.manifest, frozenset())
    assert keys <= set(manifest.loc[manifest["split"] == "test", "key"])
    assert predictions[["truth", "prediction"]].notna().all().all()
    assert summary["test"]["people"] == 5


def test_second_run_is_identical_and_reads_features_from_the_cache(faces: Set, tmp_path: Path) -> None:
    run("expression", faces, tmp_path / "a")
    cache = faces.manifest.parent / "cache"
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    run("expression", faces, tmp_path / "b")
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    first, second = ((tmp_path / run / "predictions.parquet").read_bytes() for run in "ab")
    assert first == second


def test_visible_landmarks_are_learnt(faces: Set, tmp_path: Path) -> None:
    """The position of the template survives even random convolutions."""
    alignment = run("alignment", faces, tmp_path)["pretrained"]["nme"]["mean"]
    everyone = pd.read_parquet(faces.manifest)
    points = np.stack(everyone["landmarks"].to_list()).reshape(-1, 68, 2)
    constant = np.linalg.norm(points - points.mean(axis=0), axis=-1).mean() / 18
    assert alignment < 0.6 * constant


def test_label_with_other_values_than_0_and_1_is_refused(faces: Set, tmp_path: Path) -> None:
    frame = pd.read_parquet(faces.manifest)
    frame["label.Smiling"] += 1
    frame.to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(ValueError, match=r"label 'Smiling' has the value 2: .* are 1 \(yes\) or 0 \(no\)"):
        run("attributes", faces, tmp_path / "out", manifest=tmp_path / "manifest.parquet")
    assert not (tmp_path / "out").exists()


def test_backbone_with_nan_is_refused(faces: Set, tmp_path: Path) -> None:
    weights, about = read_weights(faces.backbone)
    broken = weights | {"stem.0.weight": weights["stem.0.weight"] * torch.nan}
    save_weights(tmp_path / "broken.safetensors", broken, about)
    with pytest.raises(ValueError, match=r"broken\.safetensors: its 'stem\.0\.weight' is not finite"):
        run("expression", faces._replace(backbone=tmp_path / "broken.safetensors"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_labels_are_excluded(faces: Set, tmp_path: Path) -> None:
    run("attributes", faces, tmp_path)
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    counts = predictions[(predictions["seed"] == 0) & (predictions["model"] == "random")][
        "output"
    ].value_counts()
    assert counts["Eyeglasses"] == 40
    assert counts["Smiling"] == 39  # of person 16 one is unknown


def test_protocols_and_fractions_are_all_reported(faces: Set, tmp_path: Path) -> None:
    summary = run("expression", faces, tmp_path, protocols=("knn", "linear"), fractions=(0.2, 1.0))
    table = pd.read_csv(tmp_path / "results.csv")
    assert list(table) == list(TYPES)
    single = table[table["seed"].notna()]
    assert single.groupby(["protocol", "fraction", "seed", "model"]).ngroups == 2 * 2 * 2 * 2
    headline = single.query(
        "protocol == 'knn' and fraction == 1 and model == 'random' and metric == 'accuracy'"
    )
    assert summary["random"]["accuracy"]["mean"] == pytest.approx(headline["value"].mean())
    assert summary["random"]["accuracy"]["std"] == pytest.approx(headline["value"].std(ddof=1))


@pytest.mark.parametrize("task", ["expression", "attributes", "alignment", "gaze"])
def test_fine_tuning_runs_end_to_end(task: str, faces: Set, tmp_path: Path) -> None:
    recipe = FinetuneConfig(epochs=2, warmup_epochs=1, batch_size=32, balanced=task == "expression")
    summary = run(task, faces, tmp_path, protocols=("finetune",), seeds=1, finetune=recipe)
    assert differences(task, tmp_path) == []
    assert set(summary) == {"pretrained", "random", "pretrained - random", "test"}
    assert set(pd.read_parquet(tmp_path / "predictions.parquet")["protocol"]) == {"finetune"}


def test_baseline_is_compared_with_a_paired_difference(faces: Set, tmp_path: Path) -> None:
    summary = run("verification", faces, tmp_path, baselines={"same": str(faces.backbone)})
    assert summary["same"] == summary["pretrained"]
    for difference in summary["pretrained - same"].values():
        assert difference == {"mean": 0, "low": 0, "high": 0}  # the same resamples for both
    with pytest.raises(ValueError, match="'random' is a name that results use"):
        TransferConfig(baselines={"random": "x"})


def test_given_pairs_are_evaluated_fold_by_fold(
    faces: Set, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LFW's protocol: the threshold of a fold comes from the others, for images of any split."""
    root, names = tmp_path / "lfw", [f"P_{n}" for n in range(6)]
    records = []
    for person, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in (1, 2, 3):
            source = f"{name}/{name}_{number:04d}.jpg"
            draw(person, number % 2, 0, np.array([number, 3.0])).save(root / source)
            records.append({"key": source[:-4], "source": source, "split": "test", "person": name})
    frame = pd.DataFrame(records).assign(bytes=None, modified=None, landmarks=None)
    write(
        frame,
        root,
        tmp_path / "shards",
        tmp_path / "manifest.parquet",
        ShardConfig(workers=1),
        tmp_path / "state",
    )
    lines = ["2\t3"]
    for fold in ((0, 1, 2), (3, 4, 5)):
        lines += [f"{names[p]}\t1\t3" for p in fold]
        lines += [f"{names[p]}\t1\t{names[q]}\t2" for p, q in zip(fold, fold[1:] + fold[:1], strict=True)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    lfw = Set(tmp_path / "manifest.parquet", tmp_path / "shards", faces.backbone)
    summary = run("verification", lfw, tmp_path / "out", pairs_file=str(tmp_path / "pairs.txt"))
    assert summary["test"] == {"images": 18, "people": 6, "pairs": 12}
    predictions = pd.read_parquet(tmp_path / "out" / "predictions.parquet").query(
        "model == 'pretrained' and seed == 0"
    )
    assert predictions["truth"].tolist() == ([1.0] * 3 + [0.0] * 3) * 2
    for fold, part in predictions.groupby("fold"):
        accepted, refused = (part[part["prediction"] == value]["score"] for value in (1, 0))
        assert refused.max() < accepted.min(), fold  # one threshold in a fold
    gone = frozenset([f"{names[0]}/{names[0]}_0001"])
    summary = run(
        "verification", lfw, tmp_path / "less", pairs_file=str(tmp_path / "pairs.txt"), quarantined=gone
    )
    assert summary["test"] == {"images": 15, "people": 6, "pairs": 10}
    assert "2 of 12 pairs are left out, as 1 of their images are quarantined" in caplog.text
    (tmp_path / "pairs.txt").write_text("\n".join(lines).replace(names[0], "Nobody") + "\n")
    with pytest.raises(ValueError, match=r"'Nobody/Nobody_0001' of the pairs is missing"):
        run("verification", lfw, tmp_path / "out", pairs_file=str(tmp_path / "pairs.txt"))
    (tmp_path / "pairs.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="announces 2 folds of 2 × 3 pairs, but 11 lines follow"):
        run("verification", lfw, tmp_path / "out", pairs_file=str(tmp_path / "pairs.txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(split=f["split"].replace("val", "train")), "no image in split 'val'"),
        (lambda f: f.assign(person="p00"), "person 'p00' is in 3 splits"),
        (lambda f: f.drop(columns="label.Smiling"), "no label 'Smiling'; it has: Eyeglasses"),
    ],
)
def test_unsuitable_manifest_is_refused(change: Any, message: str, faces: Set, tmp_path: Path) -> None:
    change(pd.read_parquet(faces.manifest)).to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(ValueError, match=re.escape(message)):
        run("expression", faces, tmp_path, manifest=tmp_path / "manifest.parquet")


def test_other_mistakes_are_refused(faces: Set, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no task 'age'"):
        run("age", faces, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet: no such manifest"):
        run("expression", faces, tmp_path, manifest=tmp_path / "absent.parquet")
    with pytest.raises(ValueError, match="should be 'linear', 'knn' or 'finetune'"):
        TransferConfig(protocols=("svm",))
    with pytest.raises(ValueError, match="less than or equal to 1"):
        TransferConfig(fractions=(1.5,))


def test_quarantined_images_are_not_read(faces: Set) -> None:
    whole = read_manifest(faces.manifest, frozenset())
    quarantined = frozenset(whole["key"].iloc[[0, 5]])
    assert set(read_manifest(faces.manifest, quarantined)["key"]) == set(whole["key"]) - quarantined
