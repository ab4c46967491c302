"""The table of tasks: what each predicts, with which heads, from which features, and which metrics it reports.

Predictions are tidy: one row per test image (or pair) and output, with the columns `key`, `person`, `output`, `truth`,
`prediction` (in the units of the truth) and `score` (for rankings; null for coordinates); pairs also have `other`,
`other_person` and `fold`. Every metric is a function of these rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fra.transfer import finetune, heads, metrics
from fra.transfer.config import kind_of
from fra.transfer.features import View
from fra.transfer.finetune import Objective
from fra.transfer.heads import Array, Head, Loss

Weights = Callable[[pd.DataFrame], Iterable[Array]]
"""Weightings of prediction rows, several at a time: (B, rows) each. See `fra.transfer.metrics`."""

Metrics = dict[str, Array]
"""Metrics by name, (B,) each. `metric/output` is the metric of a single output."""


@dataclass(frozen=True)
class Probe:
    """How a task is fitted.

    Attributes:
        truth: Manifest rows and label names → truths, one column per output, NaN where unknown.
        heads: The head on frozen features of each protocol.
        objective: The objective of fine-tuning.
        loss: Chooses the regularisation of a head on validation subjects.
        decide: Scores (N, O) → predictions; without it the scores are the predictions.
        units: Manifest rows → factors (N, O) that bring outputs to the manifest's units.
    """

    truth: Callable[[pd.DataFrame, tuple[str, ...]], pd.DataFrame]
    heads: Mapping[str, Head]
    objective: Objective
    loss: Loss
    decide: Callable[[Array], Array] | None = None
    units: Callable[[pd.DataFrame], Array] | None = None


@dataclass(frozen=True)
class Curve:
    """A curve in `<name>.csv`: values at the points `grid` (column `x`), from the predictions of one fit."""

    name: str
    x: str
    grid: Array
    values: Callable[[pd.DataFrame, Array], Array]


@dataclass(frozen=True)
class Task:
    """One task: its features, what is fitted to them, and its metrics.

    Attributes:
        view: How feature maps are pooled.
        aligned: Whether faces are aligned by their landmarks first, like the published sets of the task.
        metrics: Predictions and weightings → metrics.
        primary: The headline metric.
        probe: What is fitted; None (verification) compares the features of pairs directly.
        labels: Label columns on the embedded faces.
        lower_is_better: Metrics that are errors.
        curve: A curve of the same predictions.
    """

    view: View
    aligned: bool
    metrics: Callable[[pd.DataFrame, Weights], Metrics]
    primary: str
    probe: Probe | None = None
    labels: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    curve: Curve | None = None


def label_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return labels or measures of the manifest as floats, NaN where unknown.

    Raises:
        ValueError: The manifest has no such label.
    """
    prefixes = ("label.", "measure.")
    column_of = {name.partition(".")[2]: name for name in frame.columns if name.startswith(prefixes)}
    if missing := [name for name in names if name not in column_of]:
        raise ValueError(
            f"the manifest has no label {missing[0]!r}; it has: {', '.join(sorted(column_of)) or 'none'} "
            "(set transfer.labels)"
        )
    columns = {
        name: frame[column_of[name]].astype("Float64").to_numpy(float, na_value=np.nan) for name in names
    }
    return pd.DataFrame(columns, index=frame.index)


def binary_labels(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return labels with the values 1 (yes) and 0 (no) as floats, NaN where unknown.

    Raises:
        ValueError: The manifest has no such label, or the label has another value.
    """
    labels = label_columns(frame, names)
    for name, values in labels.items():
        if other := sorted(set(values.dropna()) - {0.0, 1.0}):
            raise ValueError(
                f"label {name!r} has the value {other[0]:g}: attributes and action units are 1 (yes) or 0 (no); "
                "write a column of ones and zeros, or evaluate it as an expression (one of several classes)"
            )
    return labels


def one_hot_classes(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return one label of several classes, one-hot; the columns are the classes, as text.

    Raises:
        ValueError: There is not exactly one label, or it has fewer than two classes.
    """
    if len(names) != 1:
        raise ValueError(
            f"expression is one label of several classes, not {len(names)} labels: {', '.join(names)}"
        )
    label = label_columns(frame, names)[names[0]]
    classes = np.sort(label.dropna().unique())
    if len(classes) < 2:
        raise ValueError(f"label {names[0]!r} has {len(classes)} class; at least two are needed")
    one_hot = (label.to_numpy()[:, None] == classes).astype(float)
    one_hot[label.isna()] = np.nan
    return pd.DataFrame(one_hot, index=frame.index, columns=[f"{value:g}" for value in classes])


def directions(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return pitch and yaw (two labels, in degrees) as unit vectors: columns x, y, z.

    The convention of MPIIGaze (Zhang et al.): pitch and yaw 0 look along −z, positive pitch up, positive yaw to the
    left of the image.
    """
    pitch, yaw = np.radians(label_columns(frame, names).to_numpy()).T
    vector = [-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)]
    return pd.DataFrame(np.stack(vector, axis=1), index=frame.index, columns=list("xyz"))


def landmark_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return landmarks as fractions of the image's width and height: columns x0, y0, x1 and so on.

    Raises:
        ValueError: No image has landmarks, or images differ in their number.
    """
    lengths = sorted(int(length) for length in frame["landmarks"].dropna().map(len).unique())
    if len(lengths) != 1:
        found = " and ".join(str(length // 2) for length in lengths) or "none"
        raise ValueError(
            f"alignment needs the same number of landmarks on each image; the manifest has {found}"
        )
    unknown = np.full(lengths[0], np.nan)
    pixels = np.stack([unknown if row is None else np.asarray(row, float) for row in frame["landmarks"]])
    columns = [f"{axis}{point}" for point in range(lengths[0] // 2) for axis in "xy"]
    return pd.DataFrame(pixels / coordinate_scales(frame), index=frame.index, columns=columns)


def coordinate_scales(frame: pd.DataFrame) -> Array:
    """Return the width or height in pixels that belongs to each coordinate: (N, 2·landmarks)."""
    points = len(frame["landmarks"].dropna().iloc[0]) // 2
    return np.tile(frame[["width", "height"]].to_numpy(dtype=float), (1, points))


def argmax_one_hot(score_NO: Array) -> Array:
    """Return 1 for the output of the highest score and 0 for the others: (N, O)."""
    chosen_NO: Array = (np.arange(score_NO.shape[1]) == score_NO.argmax(axis=1)[:, None]).astype(float)
    return chosen_NO


def at_least_half(score_NO: Array) -> Array:
    """Return 1 for probabilities of at least one half, else 0: (N, O)."""
    chosen_NO: Array = (score_NO >= 0.5).astype(float)
    return chosen_NO


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


def measures(scale: float) -> Probe:
    """Return how real numbers of about this size are fitted."""
    return Probe(
        truth=label_columns,
        heads={"linear": heads.RIDGE, "knn": heads.NEIGHBOURS},
        objective=finetune.measures(scale),
        loss=heads.squared_loss,
    )


LABELS = Probe(
    truth=binary_labels,
    heads={"linear": heads.SIGMOIDS, "knn": heads.NEIGHBOURS},
    objective=finetune.LABELS,
    loss=heads.log_loss,
    decide=at_least_half,
)

TASKS: dict[str, Task] = {
    "expression": Task(
        view="pooled",
        aligned=True,
        metrics=class_metrics,
        primary="balanced_accuracy",
        probe=Probe(
            truth=one_hot_classes,
            heads={"linear": heads.SOFTMAX, "knn": heads.NEIGHBOURS},
            objective=finetune.CLASSES,
            loss=heads.log_loss,
            decide=argmax_one_hot,
        ),
        labels=("Smiling",),
    ),
    "attributes": Task(
        view="pooled",
        aligned=True,
        metrics=label_metrics,
        primary="average_precision",
        probe=LABELS,
        labels=("Eyeglasses", "Smiling", "Mouth_Slightly_Open", "Facial_Hair", "Eyes_Closed"),
    ),
    "alignment": Task(
        view="grid",
        aligned=False,
        metrics=landmark_metrics,
        primary="nme",
        probe=Probe(
            truth=landmark_columns,
            heads={"linear": heads.RIDGE, "knn": heads.NEIGHBOURS},
            objective=finetune.LANDMARKS,
            loss=heads.squared_loss,
            units=coordinate_scales,
        ),
        lower_is_better=("nme", "fr10", "fr05"),
        curve=Curve("errors", "error", np.linspace(0, 0.1, 101), landmark_curve),
    ),
    "verification": Task(
        view="pooled",
        aligned=True,
        metrics=pair_metrics,
        primary="roc_auc",
        curve=Curve("roc", "false_accepts", np.linspace(0, 1, 101), pair_curve),
    ),
    "action_units": Task(view="pooled", aligned=True, metrics=label_metrics, primary="f1", probe=LABELS),
    "gaze": Task(
        view="grid",
        aligned=False,
        metrics=direction_metrics,
        primary="angular_error",
        probe=Probe(
            truth=directions,
            heads={"linear": heads.RIDGE, "knn": heads.NEIGHBOURS},
            objective=finetune.DIRECTIONS,
            loss=heads.squared_loss,
        ),
        labels=("gaze_pitch", "gaze_yaw"),
        lower_is_better=("angular_error",),
        curve=Curve("errors", "degrees", np.linspace(0, 30, 61), direction_curve),
    ),
    "direction": Task(
        view="grid",
        aligned=False,
        metrics=angle_metrics,
        primary="angle_error",
        probe=measures(30.0),
        labels=("yaw", "pitch"),
        lower_is_better=("angle_error",),
    ),
    "actions": Task(
        view="grid",
        aligned=False,
        metrics=action_metrics,
        primary="r_squared",
        probe=measures(0.05),
        labels=("brow_raise", "lip_corner_pull", "jaw_drop", "mouth_width"),
    ),
}


def task_of(name: str) -> Task:
    """Return the task of a name such as alignment or synthetic-alignment.

    Raises:
        ValueError: There is no such task.
    """
    if kind_of(name) not in TASKS:
        raise ValueError(f"no task {name!r}; the tasks are: {', '.join(TASKS)}")
    return TASKS[kind_of(name)]
