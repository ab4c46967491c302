"""The ruler's metrics from predictions alone: values, intervals, differences of backbones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from scipy import stats

from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.ruler import finetune, fit
from fra.ruler.cross import PHOTOGRAPHS
from fra.ruler.faces import OPEN_MOUTH, Faces
from fra.ruler.fit import Entry, Setting
from fra.train.monitoring.measure import Measures
from fra.transfer import metrics
from fra.transfer.config import MINUS
from fra.transfer.metrics import Array
from fra.weights.pretrained import PretrainedBackbone

RESAMPLES = 1000
VIEWS = ViewsConfig(crop_scale=(0.5, 1.0), blur_sigma=(0.1, 1.0))
"""The views of the label-free measures: those that the released weights were trained with."""
Values: TypeAlias = dict[tuple[str, int, str], dict[int, Array]]
ERRORS = ("nme", "yaw", "pitch")
"""Metrics of which lower values are better."""
GOODNESS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "alignment": lambda value: -value,
    "uniformity": lambda value: -value,
    "alpha_req": lambda value: -(value - 1).abs(),
}
"""What is higher for a better backbone, according to the measure's authors, where it is not the measure itself."""
FIT = ["model", "seed", "labels", "draw"]
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
    """Return the metrics of all backbones, see `table`; means over draws and seeds.

    Args:
        predictions: See `fit.predict`; with columns `model` and, where a model has several pre-trainings, `seed`.
        truth: See `Faces`.
    """
    if "seed" not in predictions:
        predictions = predictions.assign(seed=0)
    count = predictions["key"].nunique()
    drawn_BN = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weight_BN = np.concatenate([np.ones((1, count)), drawn_BN])  # the first row counts each face once
    values: Values = {}
    for (model, seed, labels), part in predictions.groupby(["model", "seed", "labels"], sort=False):
        fits = [measure(fit, truth, weight_BN) for _, fit in part.groupby("draw")]
        for name in fits[0]:
            key = (str(model), int(str(labels)), name)
            values.setdefault(key, {})[int(str(seed))] = np.mean([fit[name] for fit in fits], axis=0)
    return table(values)


def table(values: Values) -> pd.DataFrame:
    """Return means over seeds with intervals: a row for each model, metric and number of labels.

    `low` and `high` bound 95 % of the resamples of the faces. `seeds` is the number of pre-trainings, and `seed_low`
    and `seed_high` bound their mean by Student's t (n − 1 degrees of freedom; NaN for one). Model "a - b" is the
    difference of the first model and another on the same resamples; its seeds are paired in the order given, NaN where
    their numbers differ.

    Args:
        values: For each model, number of labels and metric, the values (B,) by seed; the first counts each face once.
    """
    first = next(iter(values))[0]
    rows = []
    for (model, labels, name), by_seed in values.items():
        rows.append(_row(model, name, labels, list(by_seed.values())))
    for (model, labels, name), by_seed in values.items():
        if model != first:
            ours = list(values[first, labels, name].values())
            rows.append(_difference(f"{first}{MINUS}{model}", name, labels, ours, list(by_seed.values())))
    return pd.DataFrame(rows)


def _row(model: str, name: str, labels: int, value_SB: Sequence[Array]) -> dict[str, Any]:
    mean_B = np.mean(value_SB, axis=0)
    low, high = np.quantile(mean_B[1:], [0.025, 0.975])
    found = {"model": model, "metric": name, "labels": labels, "value": mean_B[0], "low": low, "high": high}
    margin = t_margin([value_B[0] for value_B in value_SB])
    return found | {"seeds": len(value_SB), "seed_low": mean_B[0] - margin, "seed_high": mean_B[0] + margin}


def _difference(
    model: str, name: str, labels: int, ours: Sequence[Array], theirs: Sequence[Array]
) -> dict[str, Any]:
    if len(ours) == len(theirs):
        return _row(model, name, labels, [one - other for one, other in zip(ours, theirs, strict=True)])
    return _row(model, name, labels, [np.mean(ours, axis=0) - np.mean(theirs, axis=0)])


def t_margin(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of a mean by Student's t; NaN for a single value."""
    if len(values) < 2:
        return math.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def beyond_chance(results: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of `table` with a column `conclusion`: 1 better, −1 worse, 0 neither.

    Better or worse where the interval over faces and, with several seeds, the interval over seeds exclude 0.
    """
    rows = results[results["model"].str.contains(MINUS, regex=False)]
    sign = np.where(rows["metric"].isin((*ERRORS, PHOTOGRAPHS)), -1, 1)
    above = (rows["low"] > 0) & ~(rows["seed_low"] <= 0)
    below = (rows["high"] < 0) & ~(rows["seed_high"] >= 0)
    return rows.assign(conclusion=sign * (above.astype(int) - below.astype(int)))


def correlations(measured: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Return how well each label-free measure predicts each metric over the models: Spearman's rank correlation.

    1: the measure orders backbones as the metric does, −1: in reverse. Columns `<measure>`, `<measure>_low` and
    `<measure>_high` (95 % over models, see `spearman_interval`), and the number of models.

    Args:
        measured: The measures of each backbone, with its `model`; seeds are averaged.
        results: See `table`.
    """
    means = measured.drop(columns="seed").groupby("model").mean()
    means = means.assign(
        **{name: goodness(means[name]) for name, goodness in GOODNESS.items() if name in means}
    )
    rows = []
    for (metric, labels), part in results.groupby(["metric", "labels"], sort=False):
        value = part.set_index("model")["value"].reindex(means.index)
        sign = -1 if metric in (*ERRORS, PHOTOGRAPHS) else 1
        row: dict[str, Any] = {"metric": metric, "labels": labels, "models": len(means)}
        for name in means:
            found = means[name].rank().corr((sign * value).rank())
            low, high = spearman_interval(found, len(means))
            row |= {str(name): found, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def spearman_interval(correlation: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a rank correlation over `count` pairs; NaN for fewer than four.

    Fisher's z with the variance (1 + r² / 2) / (n − 3) (Bonett and Wright 2000, "Sample size requirements for
    estimating Pearson, Kendall and Spearman correlations", Psychometrika 65).
    """
    if count < 4 or math.isnan(correlation):
        return math.nan, math.nan
    centre = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, correlation)))
    margin = stats.norm.ppf(0.975) * math.sqrt((1 + correlation**2 / 2) / (count - 3))
    return math.tanh(centre - margin), math.tanh(centre + margin)


def run(
    entries: Sequence[Entry], faces: Faces, setting: Setting, device: torch.device
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare backbones; return predictions (see `fit.predict`), metrics (see `compare`) and label-free measures.

    The measures are those of the backbone as it was given, also where it is fine-tuned.
    """
    predict = finetune.predict if setting.finetune else fit.predict
    found, measured = [], []
    for model, seed, encoder in entries:
        found.append(predict(encoder, faces, setting, device).assign(model=model, seed=seed))
        measured.append({"model": model, "seed": seed} | label_free(encoder, faces, device))
    predictions = pd.concat(found, ignore_index=True)
    predictions = predictions[[*FIT, *predictions.columns.drop(FIT)]]
    return predictions, compare(predictions, faces.truth), pd.DataFrame(measured)


def label_free(encoder: PretrainedBackbone, faces: Faces, device: torch.device) -> dict[str, float]:
    """Return the label-free measures of a backbone on the validation faces, with the same views for every backbone."""
    mean, std = (tuple(encoder.metadata[name]) for name in ("mean", "std"))
    views = Views(replace(VIEWS, mean=mean, std=std), seed=0)
    pixels = list(faces.image_NHW3[faces.rows("val")])
    return Measures(lambda: pixels, views, encoder.image_size, "val")(encoder.backbone.to(device), device)
