"""The tasks, a table: what is predicted, by which heads, from which features, and what is reported.

Predictions are tidy: one row for each test image (or pair) and output, with columns `key`, `person`,
`output`, `truth`, `prediction` (in the units of the truth) and `score` (what ranks; null for coordinates);
for pairs also `other`, `other_person` and `fold`. Every figure is a function of these rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fra.transfer import finetune, heads, metrics
from fra.transfer.features import View
from fra.transfer.finetune import Objective
from fra.transfer.heads import Array, Head, Loss

Weights = Callable[[pd.DataFrame], Iterable[Array]]
"""Weightings of prediction rows, some at a time: (B, rows) each. See `fra.transfer.metrics`."""

Figures = dict[str, Array]
"""Figures by name, (B,) each. `metric/output` is the figure of a single output."""


@dataclass(frozen=True)
class Probe:
    """What is fitted.

    `truth` takes manifest and label names, and gives one column an output, NaN where unknown. `heads` maps
    a protocol to a head on frozen features, whose strength has the lowest `loss` on validation people;
    `objective` is what fine-tuning does instead. `decide` turns scores (N, O) into predictions; without it
    the outputs are the predictions, times `units` to be in the manifest's units.
    """

    truth: Callable[[pd.DataFrame, tuple[str, ...]], pd.DataFrame]
    heads: Mapping[str, Head]
    objective: Objective
    loss: Loss
    decide: Callable[[Array], Array] | None = None
    units: Callable[[pd.DataFrame], Array] | None = None


@dataclass(frozen=True)
class Curve:
    """One value at each place of `grid` (column `x` of `<name>.csv`), from the predictions of one fit."""

    name: str
    x: str
    grid: Array
    values: Callable[[pd.DataFrame, Array], Array]


@dataclass(frozen=True)
class Task:
    """One task: the features it sees, what is fitted to them, and its figures.

    `aligned`: faces are brought to one place by their landmarks first, as published sets for it are.
    `labels` are its label columns on the embedded faces. Without a probe (verification), the features of
    pairs are compared as they are. `primary` is the figure that stands for the task, `lower_is_better` are
    the figures that are errors. `curve` is drawn from the same predictions.
    """

    view: View
    aligned: bool
    figures: Callable[[pd.DataFrame, Weights], Figures]
    primary: str
    probe: Probe | None = None
    labels: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    curve: Curve | None = None


def label_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Labels or measures of the manifest as floats, NaN where unknown.

    Raises:
        ValueError: the manifest has no such label.
    """
    prefixes = ("label.", "measure.")
    column_of = {name.partition(".")[2]: name for name in frame.columns if name.startswith(prefixes)}
    if missing := [name for name in names if name not in column_of]:
        raise ValueError(
            f"the manifest has no label {missing[0]!r}; it has: {', '.join(sorted(column_of)) or 'none'} "
            "(transfer.labels chooses)"
        )
    columns = {
        name: frame[column_of[name]].astype("Float64").to_numpy(float, na_value=np.nan) for name in names
    }
    return pd.DataFrame(columns, index=frame.index)


def yes_or_no(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """`label_columns` of labels that are 1 (yes) or 0 (no).

    Raises:
        ValueError: the manifest has no such label, or it has another value.
    """
    labels = label_columns(frame, names)
    for name, values in labels.items():
        if strange := sorted(set(values.dropna()) - {0.0, 1.0}):
            raise ValueError(
                f"label {name!r} has the value {strange[0]:g}: attributes and action units are 1 (yes) or 0 (no); "
                "write a column of ones and zeros, or judge it as an expression (one of several classes)"
            )
    return labels


def one_of(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """One label of several classes, one-hot: columns are the classes, as text.

    Raises:
        ValueError: not one label, or fewer than two classes.
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
    """Pitch and yaw (two labels, in degrees) as a unit vector: columns x, y, z.

    Gaze's convention (Zhang et al., MPIIGaze): pitch and yaw 0 look along −z, pitch up, yaw left in the
    image.
    """
    pitch, yaw = np.radians(label_columns(frame, names).to_numpy()).T
    vector = [-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)]
    return pd.DataFrame(np.stack(vector, axis=1), index=frame.index, columns=list("xyz"))


def landmark_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Landmarks as shares of the image's width and height: columns x0, y0, x1 …

    Raises:
        ValueError: no image has landmarks, or images differ in their number.
    """
    lengths = sorted(int(length) for length in frame["landmarks"].dropna().map(len).unique())
    if len(lengths) != 1:
        found = " and ".join(str(length // 2) for length in lengths) or "none"
        raise ValueError(f"alignment needs landmarks, as many on each image; the manifest has {found}")
    unknown = np.full(lengths[0], np.nan)
    pixels = np.stack([unknown if row is None else np.asarray(row, float) for row in frame["landmarks"]])
    columns = [f"{axis}{point}" for point in range(lengths[0] // 2) for axis in "xy"]
    return pd.DataFrame(pixels / image_sizes(frame), index=frame.index, columns=columns)


def image_sizes(frame: pd.DataFrame) -> Array:
    """What each coordinate of the landmarks is a share of, in pixels: (N, 2·landmarks)."""
    points = len(frame["landmarks"].dropna().iloc[0]) // 2
    return np.tile(frame[["width", "height"]].to_numpy(dtype=float), (1, points))


def highest(score_NO: Array) -> Array:
    """1 for the output of the highest score, 0 for the others."""
    chosen_NO: Array = (np.arange(score_NO.shape[1]) == score_NO.argmax(axis=1)[:, None]).astype(float)
    return chosen_NO


def likely(score_NO: Array) -> Array:
    """1 for outputs of probability one half or more."""
    chosen_NO: Array = (score_NO >= 0.5).astype(float)
    return chosen_NO


def blocks(rows: pd.DataFrame, *columns: str) -> tuple[pd.DataFrame, list[Array]]:
    """For images that have all outputs, in one order: the first row of each, and `columns` as (N, O) each."""
    outputs = int((rows["key"] == rows["key"].iloc[0]).sum())
    return rows.iloc[::outputs], [
        rows[column].to_numpy(dtype=float).reshape(-1, outputs) for column in columns
    ]


def weigh(parts: Iterable[Array], figures: Callable[[Array], Figures]) -> Figures:
    """The figures of all weightings, from those of some (B, N) at a time."""
    found = [figures(weight_BN) for weight_BN in parts]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def class_figures(rows: pd.DataFrame, weights: Weights) -> Figures:
    """Accuracy, balanced accuracy, macro F1 and ROC AUC (mean over classes, each against the rest)."""
    first, (truth_NO, pred_NO, score_NO) = blocks(rows, "truth", "prediction", "score")
    truth_N, pred_N = truth_NO.argmax(axis=1), pred_NO.argmax(axis=1)
    orders = [metrics.by_score(truth_NO[:, c], score_NO[:, c]) for c in np.unique(truth_N)]

    def figures(weight_BN: Array) -> Figures:
        aucs = [metrics.roc_auc(metrics.rank(order, weight_BN)) for order in orders]
        return {
            "accuracy": metrics.accuracy(truth_N, pred_N, weight_BN),
            "balanced_accuracy": metrics.balanced_accuracy(truth_N, pred_N, weight_BN),
            "macro_f1": metrics.macro_f1(truth_N, pred_N, weight_BN),
            "roc_auc": metrics.mean_of_defined(np.stack(aucs)),
        }

    return weigh(weights(first), figures)


def label_figures(rows: pd.DataFrame, weights: Weights) -> Figures:
    """Accuracy, balanced accuracy, F1, average precision and ROC AUC: of each label, and their means.

    A mean leaves out the labels without both a yes and a no among the known truths, for which only the
    accuracy is defined.
    """
    each = {
        str(output): single_label_figures(label, weights)
        for output, label in rows.groupby("output", sort=True)
    }
    names = list(next(iter(each.values())))
    means = {
        name: metrics.mean_of_defined(np.stack([label[name] for label in each.values()])) for name in names
    }
    return means | {f"{name}/{output}": label[name] for name in names for output, label in each.items()}


def single_label_figures(rows: pd.DataFrame, weights: Weights) -> Figures:
    """Those of `label_figures`, of the rows of one label."""
    truth_N, pred_N = rows["truth"].to_numpy(), rows["prediction"].to_numpy()
    order = metrics.by_score(truth_N, rows["score"].to_numpy())

    def figures(weight_BN: Array) -> Figures:
        ranking = metrics.rank(order, weight_BN)
        both = np.where((ranking.true_BT[:, -1] > 0) & (ranking.false_BT[:, -1] > 0), 1.0, np.nan)
        return {
            "accuracy": metrics.accuracy(truth_N, pred_N, weight_BN),
            "balanced_accuracy": both * metrics.balanced_accuracy(truth_N, pred_N, weight_BN),
            "f1": both * metrics.f1(truth_N > 0, pred_N > 0, weight_BN),
            "average_precision": both * metrics.average_precision(ranking),
            "roc_auc": metrics.roc_auc(ranking),
        }

    return weigh(weights(rows), figures)


def landmark_figures(rows: pd.DataFrame, weights: Weights) -> Figures:
    """NME by outer eye corners, failure rate and AUC of the cumulative error curve at 0.10 and 0.05."""
    first, error_N = landmark_errors(rows)

    def figures(weight_BN: Array) -> Figures:
        found = {"nme": metrics.mean(error_N, weight_BN)}
        for name, limit in (("10", 0.10), ("05", 0.05)):
            found[f"fr{name}"] = metrics.failure_rate(error_N, limit, weight_BN)
            found[f"auc{name}"] = metrics.area_under_curve(error_N, limit, weight_BN)
        return found

    return weigh(weights(first), figures)


def landmark_errors(rows: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """The first row of each image, and its normalised mean error: (N,)."""
    first, (truth_NO, pred_NO) = blocks(rows, "truth", "prediction")
    shape = (len(first), -1, 2)
    return first, metrics.normalised_mean_error(pred_NO.reshape(shape), truth_NO.reshape(shape))


def landmark_curve(rows: pd.DataFrame, grid_T: Array) -> Array:
    """The cumulative error curve: share of images whose normalised mean error is at most each limit: (T,)."""
    return metrics.cumulative_errors(landmark_errors(rows)[1], grid_T)


def direction_errors(rows: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """The first row of each image, and the angle between predicted and true direction in degrees: (N,)."""
    first, (truth_N3, pred_N3) = blocks(rows, "truth", "prediction")
    return first, metrics.angular_error(pred_N3, truth_N3)


def direction_curve(rows: pd.DataFrame, grid_T: Array) -> Array:
    """Share of images whose angular error is at most each limit: (T,)."""
    return metrics.cumulative_errors(direction_errors(rows)[1], grid_T)


def direction_figures(rows: pd.DataFrame, weights: Weights) -> Figures:
    """Mean angle between predicted and true direction, in degrees."""
    first, error_N = direction_errors(rows)
    return weigh(weights(first), lambda weight_BN: {"angular_error": metrics.mean(error_N, weight_BN)})


def pair_figures(rows: pd.DataFrame, weights: Weights) -> Figures:
    """ROC AUC, accuracy of the decisions, and TAR at FAR 1e-2 and 1e-3."""
    same, decided = rows["truth"].to_numpy(), rows["prediction"].to_numpy()
    order = metrics.by_score(same, rows["score"].to_numpy())

    def figures(weight_BN: Array) -> Figures:
        ranking = metrics.rank(order, weight_BN)
        return {
            "roc_auc": metrics.roc_auc(ranking),
            "accuracy": metrics.accuracy(same, decided, weight_BN),
            "tar_at_far_1e-2": metrics.true_accepts(ranking, 1e-2),
            "tar_at_far_1e-3": metrics.true_accepts(ranking, 1e-3),
        }

    return weigh(weights(rows), figures)


def pair_curve(rows: pd.DataFrame, grid_T: Array) -> Array:
    """The ROC curve: share of true pairs accepted at each share of the others accepted: (T,)."""
    order = metrics.by_score(rows["truth"].to_numpy(), rows["score"].to_numpy())
    ranking = metrics.rank(order, np.ones((1, len(rows))))
    true_T, false_T = (np.append(0.0, side[0] / side[0, -1]) for side in ranking)
    tar_T: Array = true_T[np.searchsorted(false_T, grid_T, side="right") - 1]
    return tar_T


LABELS = Probe(
    truth=yes_or_no,
    heads={"linear": heads.SIGMOIDS, "knn": heads.NEIGHBOURS},
    objective=finetune.LABELS,
    loss=heads.log_loss,
    decide=likely,
)

TASKS: dict[str, Task] = {
    "expression": Task(
        view="pooled",
        aligned=True,
        figures=class_figures,
        primary="balanced_accuracy",
        probe=Probe(
            truth=one_of,
            heads={"linear": heads.SOFTMAX, "knn": heads.NEIGHBOURS},
            objective=finetune.CLASSES,
            loss=heads.log_loss,
            decide=highest,
        ),
        labels=("Smiling",),
    ),
    "attributes": Task(
        view="pooled",
        aligned=True,
        figures=label_figures,
        primary="average_precision",
        probe=LABELS,
        labels=("Eyeglasses", "Smiling", "Mouth_Slightly_Open", "Facial_Hair", "Eyes_Closed"),
    ),
    "alignment": Task(
        view="grid",
        aligned=False,
        figures=landmark_figures,
        primary="nme",
        probe=Probe(
            truth=landmark_columns,
            heads={"linear": heads.RIDGE, "knn": heads.NEIGHBOURS},
            objective=finetune.LANDMARKS,
            loss=heads.squared_loss,
            units=image_sizes,
        ),
        lower_is_better=("nme", "fr10", "fr05"),
        curve=Curve("errors", "error", np.linspace(0, 0.1, 101), landmark_curve),
    ),
    "verification": Task(
        view="pooled",
        aligned=True,
        figures=pair_figures,
        primary="roc_auc",
        curve=Curve("roc", "false_accepts", np.linspace(0, 1, 101), pair_curve),
    ),
    "action_units": Task(view="pooled", aligned=True, figures=label_figures, primary="f1", probe=LABELS),
    "gaze": Task(
        view="grid",
        aligned=False,
        figures=direction_figures,
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
}
