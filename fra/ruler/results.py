"""The ruler's metrics from predictions alone: values, intervals, differences of backbones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fra.ruler.faces import OPEN_MOUTH, Faces
from fra.ruler.fit import Setting, predict
from fra.transfer import metrics
from fra.transfer.metrics import Array
from fra.weights.pretrained import PretrainedBackbone

RESAMPLES = 1000
ERRORS = ("nme", "yaw", "pitch")
"""Metrics of which lower values are better."""
FIT = ["model", "labels", "draw"]
"""The columns that identify a fit."""


def measure(rows: pd.DataFrame, truth: pd.DataFrame, weight_BN: Array) -> dict[str, Array]:
    """Return the metrics of one fit for each weighting (B, N) of its faces: (B,) each.

    `nme` (share of the outer-eye distance), `yaw` and `pitch` (mean absolute error in degrees), `open_mouth` (ROC AUC),
    and R² of each facial action.
    """
    truth = truth.loc[rows["key"]]
    found = {"nme": metrics.mean(rows["nme"].to_numpy(float), weight_BN)}
    for name in truth.columns:
        true_N, pred_N = truth[name].to_numpy(), rows[name].to_numpy(float)
        if name in ERRORS:
            found[name] = metrics.mean(np.abs(pred_N - true_N), weight_BN)
        elif name == OPEN_MOUTH:
            known = ~np.isnan(true_N)
            order = metrics.by_score(true_N[known], pred_N[known])
            found["open_mouth"] = metrics.roc_auc(metrics.rank(order, weight_BN[:, known]))
        else:
            found[name] = metrics.r_squared(pred_N, true_N, weight_BN)
    return found


def compare(predictions: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics of all backbones: columns `model`, `metric`, `labels`, `value`, `low`, `high`.

    Means over draws; `low` and `high` bound 95 % of 1,000 bootstrap resamples of the faces. Model "a - b" is the
    difference of the first backbone and another on the same resamples (paired).

    Args:
        predictions: See `predict`; with a column `model`.
        truth: See `Faces`.
    """
    count = predictions["key"].nunique()
    drawn_BN = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weight_BN = np.concatenate([np.ones((1, count)), drawn_BN])  # the first row counts each face once
    means: dict[tuple[str, int], dict[str, Array]] = {}
    for (model, labels), part in predictions.groupby(["model", "labels"], sort=False):
        fits = [measure(fit, truth, weight_BN) for _, fit in part.groupby("draw")]
        means[str(model), int(str(labels))] = {
            name: np.mean([fit[name] for fit in fits], axis=0) for name in fits[0]
        }
    first = next(iter(means))[0]
    for (model, labels), values in list(means.items()):
        if model != first:
            ours = means[first, labels]
            means[f"{first} - {model}", labels] = {name: ours[name] - values[name] for name in values}
    return pd.DataFrame(
        [
            {"model": model, "metric": name, "labels": labels, "value": value_B[0]}
            | dict(zip(("low", "high"), np.quantile(value_B[1:], [0.025, 0.975]), strict=True))
            for (model, labels), values in means.items()
            for name, value_B in values.items()
        ]
    )


def run(
    encoders: Sequence[tuple[str, PretrainedBackbone]], faces: Faces, setting: Setting, device: torch.device
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare backbones; return their predictions (see `predict`) and metrics (see `compare`)."""
    found = []
    for name, encoder in encoders:
        found.append(predict(encoder, faces, setting, device).assign(model=name))
    predictions = pd.concat(found, ignore_index=True)
    predictions = predictions[[*FIT, *predictions.columns.drop(FIT)]]
    return predictions, compare(predictions, faces.truth)
