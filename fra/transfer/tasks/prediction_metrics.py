"""Metrics and curves of tidy predictions.

Predictions are tidy: one row per test image (or pair) and output, with the columns `key`, `person`, `output`, `truth`,
`prediction` (in the units of the truth) and `score` (for rankings; null for coordinates); pairs also have `other`,
`other_person` and `fold`. Every metric is a function of these rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from fra.transfer import metrics
from fra.transfer.heads import Array

Weights = Callable[[pd.DataFrame], Iterable[Array]]
"""Weightings of prediction rows, several at a time: (B, rows) each. See `fra.transfer.metrics`."""

Metrics = dict[str, Array]
"""Metrics by name, (B,) each. `metric/output` is the metric of a single output."""


def by_image(rows: pd.DataFrame, *columns: str) -> tuple[pd.DataFrame, list[Array]]:
    """Return the first row of each image, and columns of all its outputs as matrices (N, O).

    All images must have the same outputs in the same order.
    """
    outputs = int((rows["key"] == rows["key"].iloc[0]).sum())
    return rows.iloc[::outputs], [
        rows[column].to_numpy(dtype=float).reshape(-1, outputs) for column in columns
    ]


def over_weightings(parts: Iterable[Array], compute: Callable[[Array], Metrics]) -> Metrics:
    """Return the metrics of all weightings, computed for several weightings (B, N) at a time."""
    found = [compute(weight_BN) for weight_BN in parts]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def class_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute accuracy, balanced accuracy, macro F1 and ROC AUC (mean over classes, one against the rest)."""
    first, (truth_NO, pred_NO, score_NO) = by_image(rows, "truth", "prediction", "score")
    truth_N, pred_N = truth_NO.argmax(axis=1), pred_NO.argmax(axis=1)
    orders = [metrics.by_score(truth_NO[:, c], score_NO[:, c]) for c in np.unique(truth_N)]

    def compute(weight_BN: Array) -> Metrics:
        aucs = [metrics.roc_auc(metrics.rank(order, weight_BN)) for order in orders]
        return {
            "accuracy": metrics.accuracy(truth_N, pred_N, weight_BN),
            "balanced_accuracy": metrics.balanced_accuracy(truth_N, pred_N, weight_BN),
            "macro_f1": metrics.macro_f1(truth_N, pred_N, weight_BN),
            "roc_auc": metrics.mean_of_defined(np.stack(aucs)),
        }

    return over_weightings(weights(first), compute)


def label_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute accuracy, balanced accuracy, F1, average precision and ROC AUC, of each label and their means.

    Labels without both values among the known truths have an accuracy only, and do not count in the other means.
    """
    each = {
        str(output): single_label_metrics(label, weights)
        for output, label in rows.groupby("output", sort=True)
    }
    names = list(next(iter(each.values())))
    means = {
        name: metrics.mean_of_defined(np.stack([label[name] for label in each.values()])) for name in names
    }
    return means | {f"{name}/{output}": label[name] for name in names for output, label in each.items()}


def single_label_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute the metrics of `label_metrics` from the rows of one label."""
    truth_N, pred_N = rows["truth"].to_numpy(), rows["prediction"].to_numpy()
    order = metrics.by_score(truth_N, rows["score"].to_numpy())

    def compute(weight_BN: Array) -> Metrics:
        ranking = metrics.rank(order, weight_BN)
        both = np.where((ranking.positive_BT[:, -1] > 0) & (ranking.negative_BT[:, -1] > 0), 1.0, np.nan)
        return {
            "accuracy": metrics.accuracy(truth_N, pred_N, weight_BN),
            "balanced_accuracy": both * metrics.balanced_accuracy(truth_N, pred_N, weight_BN),
            "f1": both * metrics.f1(truth_N > 0, pred_N > 0, weight_BN),
            "average_precision": both * metrics.average_precision(ranking),
            "roc_auc": metrics.roc_auc(ranking),
        }

    return over_weightings(weights(rows), compute)


def landmark_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute the NME by outer eye corners, and failure rate and AUC of the cumulative errors at 0.10 and 0.05."""
    first, error_N = landmark_errors(rows)

    def compute(weight_BN: Array) -> Metrics:
        found = {"nme": metrics.mean(error_N, weight_BN)}
        for name, limit in (("10", 0.10), ("05", 0.05)):
            found[f"fr{name}"] = metrics.failure_rate(error_N, limit, weight_BN)
            found[f"auc{name}"] = metrics.area_under_curve(error_N, limit, weight_BN)
        return found

    return over_weightings(weights(first), compute)


def landmark_errors(rows: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """Return the first row of each image, and its normalised mean error: (N,)."""
    first, (truth_NO, pred_NO) = by_image(rows, "truth", "prediction")
    shape = (len(first), -1, 2)
    return first, metrics.normalised_mean_error(pred_NO.reshape(shape), truth_NO.reshape(shape))


def landmark_curve(rows: pd.DataFrame, grid_T: Array) -> Array:
    """Return the share of images whose normalised mean error is at most each limit: (T,)."""
    return metrics.cumulative_errors(landmark_errors(rows)[1], grid_T)


def direction_errors(rows: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """Return the first row of each image, and the angle between predicted and true direction in degrees: (N,)."""
    first, (truth_N3, pred_N3) = by_image(rows, "truth", "prediction")
    return first, metrics.angular_error(pred_N3, truth_N3)


def direction_curve(rows: pd.DataFrame, grid_T: Array) -> Array:
    """Return the share of images whose angular error is at most each limit: (T,)."""
    return metrics.cumulative_errors(direction_errors(rows)[1], grid_T)


def direction_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute the mean angle between predicted and true direction, in degrees."""
    first, error_N = direction_errors(rows)
    return over_weightings(
        weights(first), lambda weight_BN: {"angular_error": metrics.mean(error_N, weight_BN)}
    )


def angle_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute the mean absolute error in degrees, and R², of each angle and their means."""
    return measure_metrics(rows, weights, "angle_error")


def action_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute R² (coefficient of determination) of each measure and their mean."""
    return measure_metrics(rows, weights)


def measure_metrics(rows: pd.DataFrame, weights: Weights, error: str | None = None) -> Metrics:
    """Compute R² of each output and their mean, and under the name `error` the mean absolute error."""
    first, (truth_NO, pred_NO) = by_image(rows, "truth", "prediction")
    outputs = [str(name) for name in rows["output"].iloc[: truth_NO.shape[1]]]

    def compute(weight_BN: Array) -> Metrics:
        found: Metrics = {}
        for number, output in enumerate(outputs):
            truth_N, pred_N = truth_NO[:, number], pred_NO[:, number]
            found[f"r_squared/{output}"] = metrics.r_squared(pred_N, truth_N, weight_BN)
            if error:
                found[f"{error}/{output}"] = metrics.mean(np.abs(pred_N - truth_N), weight_BN)
        means = {
            name: np.mean([found[f"{name}/{output}"] for output in outputs], axis=0)
            for name in ("r_squared", *([error] if error else []))
        }
        return means | found

    return over_weightings(weights(first), compute)


def pair_metrics(rows: pd.DataFrame, weights: Weights) -> Metrics:
    """Compute ROC AUC, accuracy of the decisions, and TAR at FAR 1e-2 and 1e-3."""
    same, decided = rows["truth"].to_numpy(), rows["prediction"].to_numpy()
    order = metrics.by_score(same, rows["score"].to_numpy())

    def compute(weight_BN: Array) -> Metrics:
        ranking = metrics.rank(order, weight_BN)
        return {
            "roc_auc": metrics.roc_auc(ranking),
            "accuracy": metrics.accuracy(same, decided, weight_BN),
            "tar_at_far_1e-2": metrics.true_accepts(ranking, 1e-2),
            "tar_at_far_1e-3": metrics.true_accepts(ranking, 1e-3),
        }

    return over_weightings(weights(rows), compute)


def pair_curve(rows: pd.DataFrame, grid_T: Array) -> Array:
    """Return the ROC curve, the true accept rate at each false accept rate: (T,)."""
    order = metrics.by_score(rows["truth"].to_numpy(), rows["score"].to_numpy())
    ranking = metrics.rank(order, np.ones((1, len(rows))))
    tar_T, far_T = (np.append(0.0, side[0] / side[0, -1]) for side in ranking)
    curve_T: Array = tar_T[np.searchsorted(far_T, grid_T, side="right") - 1]
    return curve_T
