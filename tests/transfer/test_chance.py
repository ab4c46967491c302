"""Shuffled labels give chance level in every task: no test information reaches a head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.labelled_set import LABELS, Set, run

from fra.transfer import heads
from fra.transfer.evaluate import Rows, choose_rows, fit_probe, tidy
from fra.transfer.results import unweighted
from fra.transfer.tasks.table import TASKS

SHUFFLES = 8
FITS = [
    pytest.param(task, protocol, marks=() if protocol == "linear" else pytest.mark.slow)
    for task, entry in TASKS.items()
    if task not in ("direction", "actions")  # fitted like gaze
    for protocol in (entry.probe.heads if entry.probe else ["linear"])
]


def shuffled(task: str, frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Give each image the truth of another one; in verification, images change people within their split."""
    generator = np.random.default_rng(seed)
    if task == "verification":
        person = frame.groupby("split")["person"].transform(
            lambda rows: generator.permutation(rows.to_numpy())
        )
        return frame.assign(person=person)
    order = generator.permutation(len(frame))
    columns = (
        ["landmarks"]
        if task == "alignment"
        else [name for name in frame if name.startswith(("label.", "measure."))]
    )
    return frame.assign(**{name: frame[name].array[order] for name in columns})


def beyond_chance(task: str, predictions: pd.DataFrame) -> float:
    """Return ROC AUC − 1/2 of a fit, or how far its error is below that of the best constant."""
    entry = TASKS[task]
    found = entry.metrics(predictions, unweighted)
    if task not in ("alignment", "gaze"):
        return float(found["roc_auc"][0]) - 0.5
    constant = predictions.groupby("output")["truth"].transform("mean")
    best = entry.metrics(predictions.assign(prediction=constant), unweighted)
    return float(best[entry.primary][0] / found[entry.primary][0]) - 1


@pytest.mark.parametrize(("task", "protocol"), FITS)
def test_shuffled_labels_give_chance(task: str, protocol: str, faces: Set, tmp_path: Path) -> None:
    """Within 3 standard errors over shuffles; an error may be above that of the best constant, never below."""
    frame, values = pd.read_parquet(faces.manifest), []
    for seed in range(SHUFFLES):
        shuffled(task, frame, seed).to_parquet(tmp_path / "manifest.parquet")
        run(task, faces, tmp_path, manifest=tmp_path / "manifest.parquet", seeds=1, protocols=(protocol,))
        predictions = pd.read_parquet(tmp_path / "predictions.parquet")
        values.append(beyond_chance(task, predictions[predictions["model"] == "pretrained"]))
    deviation = np.std(values, ddof=1) / np.sqrt(SHUFFLES)
    assert np.mean(values) < 3 * deviation + 1e-9
    if task not in ("alignment", "gaze"):
        assert np.mean(values) > -3 * deviation - 1e-9


@pytest.mark.parametrize("task", ["expression", "action_units", "alignment", "gaze"])
def test_leak_of_test_images_is_detected(task: str, faces: Set) -> None:
    """The same shuffles with the test images in the training set: far better than chance."""
    frame = shuffled(task, pd.read_parquet(faces.manifest), 0)
    entry = TASKS[task].probe
    assert entry is not None
    truth = entry.truth(frame, LABELS.get(task, TASKS[task].labels))
    rows = choose_rows(frame, truth, 1.0, 0)
    x_ND = heads.unit(np.random.default_rng(1).normal(size=(len(frame), 64)))
    fits = {
        "leak": Rows(np.union1d(rows.train, rows.test), rows.test, rows.test),
        "none": rows,
    }
    found = {
        name: beyond_chance(
            task,
            tidy(
                entry,
                frame.iloc[rows.test],
                truth.iloc[rows.test],
                fit_probe(entry, "knn", x_ND, truth, part)[0](x_ND[part.test]),
            ),
        )
        for name, part in fits.items()
    }
    assert found["leak"] > 0.4
    assert found["none"] < 0.15
