"""Stored metrics follow from the stored predictions; every change of one is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.labelled_set import Set, run
from typer.testing import CliRunner

from fra.transfer.recompute import differences
from pipelines.cli.main import app


@pytest.fixture(scope="module")
def evaluated(faces: Set, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    for task in ("alignment", "verification"):
        run(task, faces, root / task, fractions=(0.5, 1.0), groups={"alignment": ("label.Eyeglasses",)})
    return root


def table(name: str, row: int, column: str, value: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = pd.read_csv(folder / name, keep_default_na=False)
        found[column] = found[column].astype(object)
        found.loc[row, column] = value
        found.to_csv(folder / name, index=False)

    return change


def summary(folder: Path) -> None:
    found = json.loads((folder / "metrics.json").read_text())
    found["pretrained"]["nme"]["mean"] *= 0.999999
    (folder / "metrics.json").write_text(json.dumps(found))


def prediction(folder: Path) -> None:
    found = pd.read_parquet(folder / "predictions.parquet")
    found.loc[7, "prediction"] += 0.5
    found.to_parquet(folder / "predictions.parquet")


def shortened(folder: Path) -> None:
    path = folder / "results.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def invented(folder: Path) -> None:
    found = json.loads((folder / "metrics.json").read_text())
    found["ours"] = {"nme": {"mean": 0.01}}
    (folder / "metrics.json").write_text(json.dumps(found))


TAMPERINGS = {
    "a metric": (
        table("results.csv", 0, "value", 0.0123),
        r"results\.csv: .*nme value: stored 0\.0123, recomputed",
    ),
    "an interval": (table("results.csv", 3, "low", 0.0), r"results\.csv: .* low: stored 0\.0"),
    "a curve": (
        table("curves/errors.csv", 50, "pretrained", 0.99),
        r"errors\.csv: 0\.05 pretrained: stored 0\.99",
    ),
    "the summary": (summary, r"metrics\.json: pretrained\.nme\.mean"),
    "a prediction": (prediction, r"results\.csv: .*nme value"),
    "a removed row": (shortened, "missing, recomputed"),
    "an invented model": (invented, r"ours\.nme\.mean: stored, but does not follow from the predictions"),
    "a missing file": (
        lambda folder: (folder / "curves/few_labels.csv").unlink(),
        r"few_labels\.csv: missing",
    ),
    "invalid JSON": (
        lambda folder: (folder / "metrics.json").write_text("{"),
        r"metrics\.json: cannot be read",
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_named(name: str, evaluated: Path, tmp_path: Path) -> None:
    change, message = TAMPERINGS[name]
    shutil.copytree(evaluated, tmp_path / "transfer")
    change(tmp_path / "transfer/alignment")
    done = CliRunner().invoke(app, ["transfer", "recompute", "--folder", str(tmp_path / "transfer")])
    assert done.exit_code == 1
    assert "verification: pass" in done.output
    found = differences("alignment", tmp_path / "transfer/alignment")
    assert f"alignment: {len(found):,} differences" in done.output
    assert (f"and {len(found) - 20:,} more" in done.output) == (len(found) > 20)
    assert pd.Series(found).str.contains(message).any(), found


def test_untouched_metrics_pass(evaluated: Path) -> None:
    done = CliRunner().invoke(app, ["transfer", "recompute", "--folder", str(evaluated)])
    assert (done.exit_code, done.output) == (0, "alignment: pass\nverification: pass\n")
    done = CliRunner().invoke(app, ["transfer", "recompute", "alignment", "--folder", str(evaluated)])
    assert (done.exit_code, done.output) == (0, "alignment: pass\n")


def test_curves_have_a_column_per_model_and_agree_with_the_metrics(evaluated: Path) -> None:
    results = pd.read_csv(evaluated / "alignment/results.csv")
    mean = results[results["seed"].isna() & results["group"].isna() & (results["model"] == "random")]
    labels = pd.read_csv(evaluated / "alignment/curves/few_labels.csv")
    assert list(labels) == ["fraction", "pretrained", "random"]
    nme = mean[mean["metric"] == "nme"].set_index("fraction")["value"]
    assert labels.set_index("fraction")["random"].to_dict() == pytest.approx(nme.to_dict())
    errors = pd.read_csv(evaluated / "alignment/curves/errors.csv")
    assert list(errors) == ["error", "pretrained", "random"]
    failures = mean[(mean["metric"] == "fr10") & (mean["fraction"] == 1)]["value"].item()
    assert errors["random"].iloc[-1] == pytest.approx(1 - failures)
    area = mean[(mean["metric"] == "auc10") & (mean["fraction"] == 1)]["value"].item()
    assert np.trapezoid(errors["random"], errors["error"]) / 0.1 == pytest.approx(area, abs=0.01)
    roc = pd.read_csv(evaluated / "verification/curves/roc.csv")
    auc = pd.read_csv(evaluated / "verification/results.csv").query("metric == 'roc_auc' and seed.isna()")
    auc = auc[auc["model"] == "random"]["value"].iloc[0]
    assert np.trapezoid(roc["random"], roc["false_accepts"]) == pytest.approx(auc, abs=0.02)


def test_missing_predictions_and_unknown_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"predictions\.parquet: no such predictions; run `dvc repro"):
        differences("gaze", tmp_path)
    with pytest.raises(ValueError, match="no task 'age'"):
        differences("age", tmp_path)
