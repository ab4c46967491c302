"""docs/results/ruler.md states what follows from the stored predictions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.workspace import ROOT

from fra.data.datasets.adapters import synthetic
from fra.ruler import cross, results
from fra.ruler.faces import OPEN_MOUTH

STORED = ROOT / "docs/results/evidence/ruler"
ROWS = {
    "nme": ("landmarks, NME in %", 100, 2),
    "yaw": ("yaw, mean error in °", 1, 1),
    "pitch": ("pitch, mean error in °", 1, 1),
    "open_mouth": ("open mouth, ROC AUC", 1, 3),
    "brow_raise": ("brow raise, R²", 1, 2),
    "lip_corner_pull": ("lip corner pull, R²", 1, 2),
    "jaw_drop": ("jaw drop, R²", 1, 2),
    "mouth_width": ("mouth width, R²", 1, 2),
}


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    """Without the rows of the cross test, which has predictions of its own."""
    table = pd.read_csv(STORED / "results.csv")
    return table[table["metric"].isin(ROWS)].reset_index(drop=True)


@pytest.mark.parametrize("metric", ROWS)
def test_the_page_states_the_stored_metrics(metric: str, stored: pd.DataFrame) -> None:
    label, scale, digits = ROWS[metric]
    text = (ROOT / "docs/results/ruler.md").read_text().replace("−", "-")
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} ")]
    cells = [[float(number) for number in re.findall(r"-?\d+\.\d+", cell)] for cell in line.split("|")[2:-1]]
    rows = stored[stored["metric"] == metric].set_index(["model", "labels"])
    table = rows[["value", "low", "high"]] * scale
    close = 0.51 * 10**-digits
    for model, cell in zip(("demo", "demo-48", "random:0", "random:1"), cells, strict=False):
        assert cell == pytest.approx(list(table.loc[model]["value"]), abs=close), model
    for other, cell in zip(("demo-48", "random:0", "random:1"), cells[4:], strict=True):
        difference = table.loc[(f"demo - {other}", 400)]
        assert cell == pytest.approx([difference["low"], difference["high"]], abs=close), other


def computed(folder: Path) -> pd.DataFrame:
    """The metrics of the stored predictions of a folder."""
    rows = synthetic.read_annotations()
    truth = pd.DataFrame([dict(row.measures) | dict(row.labels) for row in rows.values()], index=list(rows))
    assert OPEN_MOUTH in truth
    return results.compare(pd.read_parquet(folder / "predictions.parquet"), truth.astype(float))


def test_stored_values_follow_from_the_predictions(
    stored: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(results, "RESAMPLES", 2)
    found = computed(STORED)
    keys = ["model", "metric", "labels"]
    assert found[keys].equals(stored[keys])
    np.testing.assert_allclose(found["value"], stored["value"], rtol=1e-6)


@pytest.mark.slow
def test_stored_intervals_follow_from_the_predictions(
    stored: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = computed(STORED)
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(found[column], stored[column], rtol=1e-6, atol=1e-9)


def test_the_page_states_the_cross_test() -> None:
    """Computed from the stored predictions of the photographs."""
    table = results.table(cross.values(pd.read_parquet(STORED / "photographs.parquet")))
    table = table.set_index(["model", "labels"])[["value", "low", "high"]] * 100
    text = " ".join((ROOT / "docs/results/ruler.md").read_text().replace("−", "-").split())
    values = {
        model: " / ".join(f"{value:.1f}" for value in table.loc[model, "value"])
        for model in ("demo", "random:0", "random:1")
    }
    mean_face = table.loc[(cross.MEAN_FACE, 100), "value"]
    assert (
        f"the mean synthetic face {mean_face:.1f}, released {values['demo']}, random weights {values['random:0']} and "
        f"{values['random:1']}."
    ) in text
    bounds = [table.loc[(f"demo - random:{seed}", 400)] for seed in (0, 1)]
    intervals = " and ".join(f"{row['low']:.1f} … {row['high']:.1f}" for row in bounds)
    assert f"with 400 labels (95 %, over 40 people): {intervals} points" in text
