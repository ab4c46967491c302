"""Artifacts of a small run; most files are written by the code that writes them in a real run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write as write_shards
from fra.data.views.config import ViewsConfig
from fra.files import write_json, write_parquet
from fra.method import backbone
from fra.method.networks import Encoder
from fra.train.monitoring.history import COLUMNS, as_csv
from fra.transfer.results import results, summarise
from fra.validation import verdict
from fra.validation.verdict import ValidationResult
from fra.weights.files import save_weights

WIDTH, HEIGHT, SIZE, MASKS = 48, 56, 32, 3
MARKUP_IN_NAME = "<script>alert('x')</script> & \"co\".jpg"
PROVENANCE = {
    "code": {"commit": "0123456789abcdef0123456789abcdef01234567", "modified": False},
    "params": {"model": {"backbone": "small", "num_masks": MASKS}, "views": asdict(ViewsConfig())},
    "environment": {"python": "3.11", "lock": None},
    "inputs": {"data/beton/toy/train.beton": "ab" * 32},
}


def face(seed: int) -> tuple[Image.Image, list[float]]:
    """Draw a face; return it with 68 random landmarks, of which the outer eye corners are at fixed positions."""
    draw_from = np.random.default_rng(seed)
    x, y = 24 + draw_from.integers(-3, 4), 28 + draw_from.integers(-3, 4)
    grey = int(draw_from.integers(140, 220))
    image = Image.new("RGB", (WIDTH, HEIGHT), (40, 50, 60))
    pen = ImageDraw.Draw(image)
    pen.ellipse((x - 18, y - 24, x + 18, y + 24), fill=(grey, grey - 20, grey - 30))
    for eye in (-8, 8):
        pen.ellipse((x + eye - 4, y - 8, x + eye + 4, y - 4), fill=(20, 20, 20))
    pen.line((x - 7, y + 12, x + 7, y + 12), fill=(120, 20, 20), width=2)
    points = [[x, y] + 6 * draw_from.standard_normal(2) for _ in range(68)]
    points[36], points[45] = np.array([x - 12, y - 6]), np.array([x + 12, y - 6])
    return image, [float(value) for value in np.concatenate(points)]


def write_data(folder: Path) -> tuple[Path, Path, pd.DataFrame]:
    """Write shards of twelve people with three photographs each; return manifest, shards, and rows of the manifest."""
    raw = folder / "raw"
    raw.mkdir()
    records = []
    for number in range(36):
        person = number // 3
        image, landmarks = face(number)
        key = f"p{person:02d}/{number % 3}"
        source = key.replace("/", "_") + ".png"
        image.save(raw / source)
        records.append(
            {
                "key": key,
                "source": source,
                "split": "train" if person < 4 else "val" if person < 6 else "test",
                "person": f"p{person:02d}",
                "label.Smiling": number % 2,
                "label.Eyeglasses": person % 2,
                "landmarks": landmarks,
                "bytes": None,
                "modified": None,
            }
        )
    shards, manifest = folder / "shards", folder / "toy.parquet"
    table = write_shards(
        pd.DataFrame(records), raw, shards, manifest, ShardConfig(workers=1), folder / "state"
    )
    return manifest, shards, table


def write_validation(folder: Path) -> None:
    rules = [
        ("decodable", "quarantine", "cannot be decoded", False),
        ("rows", "error", "too few images", True),
    ]
    verdict.write(
        ValidationResult(
            success=True,
            dataset="toy",
            validated_files={"data/manifest/toy.parquet": "cd" * 32},
            rows=38,
            quarantined=2,
            limit=0.1,
            reasons=[],
            expectations=[
                {
                    "name": name,
                    "severity": severity,
                    "reason": reason,
                    "success": success,
                    "unexpected_count": 0 if success else 2,
                    "examples": [] if success else ["bad/0", "bad/1"],
                }
                for name, severity, reason, success in rules
            ],
        ),
        folder / "verdict.json",
    )
    quarantined = pd.DataFrame(
        {
            "key": ["bad/0", "bad/1"],
            "split": ["train", "train"],
            "index": [-1, -1],
            "source": ["bad/0.jpg", MARKUP_IN_NAME],
            "reason": ["the file is empty (0 bytes)", "not an image: no known format begins like this"],
        }
    )
    quarantined.to_csv(folder / "quarantine.csv", index=False)
    (folder / "data_docs").mkdir()
    (folder / "data_docs" / "index.html").write_text(
        "<!doctype html><title>Data Docs</title>", encoding="utf-8"
    )


def write_pretrain(folder: Path, masks: int = MASKS) -> None:
    torch.manual_seed(0)
    trunk = backbone.build("small")
    encoder = Encoder(
        trunk,
        feature_dim=trunk.feature_dim,
        num_masks=masks,
        hidden_dim=16,
        projection_dim=16,
        dropout=0.0,
    )
    views = ViewsConfig()
    about = {
        "backbone": "small",
        "contents": "model",
        "num_masks": masks,
        "projection_dim": 16,
        "hidden_dim": 16,
        "image_size": SIZE,
        "mean": views.mean,
        "std": views.std,
        "provenance": PROVENANCE,
    }
    save_weights(folder / "model.safetensors", encoder.state_dict(), about)
    history = [dict.fromkeys(COLUMNS, 1 / (step + 1)) | {"step": step + 1, "epoch": 0} for step in range(300)]
    (folder / "history.csv").write_text(as_csv(history), encoding="utf-8")
    write_json(
        {"step": 300, "epoch": 3, "device": "cpu", "precision": "float32"},
        folder / "metrics.json",
    )


def write_transfer(folder: Path, task: str, predictions: pd.DataFrame) -> None:
    table = results(task, predictions)
    write_parquet(predictions, folder / "predictions.parquet")
    table.to_csv(folder / "results.csv", index=False)
    write_json(summarise(table, predictions), folder / "metrics.json")


def fits(rows: pd.DataFrame, protocol: str, fractions: tuple[float, ...]) -> pd.DataFrame:
    """Return `rows` for each fraction, two seeds and two models, with noisy values (columns key, output, truth, noise).

    The noise is half as large for the pre-trained model.
    """
    parts = []
    for fraction in fractions:
        for seed in range(2):
            for model, noise in (("pretrained", 0.5), ("random", 1.0)):
                random = np.random.default_rng([seed, int(100 * fraction), int(10 * noise)])
                value = rows["truth"] + noise * rows["noise"] * random.standard_normal(len(rows))
                parts.append(
                    rows.drop(columns="noise").assign(
                        protocol=protocol, fraction=fraction, seed=seed, model=model, value=value
                    )
                )
    return pd.concat(parts, ignore_index=True)


def tidy(rows: pd.DataFrame, decided: bool) -> pd.DataFrame:
    """Return predictions as transfer writes them: `value` is the score of a decision, or the prediction itself."""
    score = rows["value"] if decided else np.nan
    prediction = (rows["value"] > 0.5).astype(float) if decided else rows["value"]
    return rows.drop(columns="value").assign(prediction=prediction, score=score)


def write_tasks(folder: Path, manifest: pd.DataFrame) -> None:
    test = manifest[manifest["split"] == "test"]
    about = test[["key", "person"]]

    def labelled(name: str, output: str, value: int) -> pd.DataFrame:
        truth = (test[f"label.{name}"] == value).astype(float)
        return about.assign(output=output, truth=truth.to_numpy(), noise=1.0)

    classes = pd.concat([labelled("Smiling", str(value), value) for value in (0, 1)])
    classes = tidy(fits(classes.sort_values(["key", "output"]), "linear", (0.1, 1.0)), True)
    run = ["protocol", "fraction", "seed", "model", "key"]
    highest = classes.groupby(run)["score"].transform("max")
    write_transfer(
        folder / "expression",
        "expression",
        classes.assign(prediction=(classes["score"] == highest).astype(float)),
    )

    labels = pd.concat([labelled(name, name, 1) for name in ("Smiling", "Eyeglasses")])
    glasses = labels["key"].map(test.set_index("key")["label.Eyeglasses"])
    attributes = tidy(fits(labels.assign(**{"group.Eyeglasses": glasses}), "linear", (1.0,)), True)
    write_transfer(folder / "attributes", "attributes", attributes)

    outputs = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    points = about.loc[about.index.repeat(len(outputs))].assign(
        output=outputs * len(test), truth=np.concatenate(test["landmarks"].to_list()), noise=2.0
    )
    write_transfer(folder / "alignment", "alignment", tidy(fits(points, "linear", (1.0,)), False))

    pairs = test.merge(test, how="cross", suffixes=("", "_y")).query("key < key_y")
    pair_rows = pd.DataFrame(
        {
            "key": pairs["key"],
            "other": pairs["key_y"],
            "person": pairs["person"],
            "other_person": pairs["person_y"],
            "output": "same",
            "truth": (pairs["person"] == pairs["person_y"]).astype(float),
            "noise": 0.8,
        }
    )
    write_transfer(folder / "verification", "verification", tidy(fits(pair_rows, "cosine", (1.0,)), True))


def write_run(folder: Path) -> dict[str, Any]:
    """Write all artifacts of a run; return the arguments of `fra.report.page.write` except `out`."""
    for name in ("validation", "pretrain"):
        (folder / name).mkdir(parents=True)
    manifest, shards, table = write_data(folder)
    write_validation(folder / "validation")
    write_pretrain(folder / "pretrain")
    write_tasks(folder / "transfer", table)
    quarantined = folder / "quarantine.csv"
    verdict.write_quarantine(pd.DataFrame(columns=list(verdict.QUARANTINE_TYPES)), quarantined)
    tasks = ("expression", "attributes", "alignment", "verification")
    quality = {"nmi": 0.25, "view_kappa": 0.5, "people_kappa": 0.625}
    return {
        "validation": folder / "validation",
        "pretrain": folder / "pretrain",
        "transfer": {task: folder / "transfer" / task for task in tasks},
        "manifest": manifest,
        "quarantined": quarantined,
        "shards": shards,
        "provenance": json.loads(json.dumps(PROVENANCE)),
        "region_quality": {"place": quality, "pretrained": quality},
    }


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Artifacts of a complete run; tests that delete files use a copy."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def report(artifacts: dict[str, Any]) -> Path:
    """The report page of the complete run."""
    from fra.report.page import write

    return write(artifacts["validation"].parent / "report" / "index.html", **artifacts)
