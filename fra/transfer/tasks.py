"""The tasks, a table: what is predicted, by which heads, from which features, and what is reported.

Predictions are tidy: one row for each test image (or pair) and output, with columns `key`, `output`,
`truth`, `prediction` (in the units of the truth) and `score` (what ranks; null for coordinates). Every
figure is a function of these rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from fra.transfer import heads, metrics
from fra.transfer.features import View
from fra.transfer.heads import Array, Head, Loss

Figures = dict[str, float]


@dataclass(frozen=True)
class Probe:
    """What is fitted to features.

    `truth` takes manifest and label names, and gives one column an output, NaN where unknown; `heads` maps
    a protocol to its head, whose strength has the lowest `loss` on validation people.

    `decide` turns scores (N, O) into predictions; without it the head's outputs are the predictions, times
    `units` to be in the manifest's units.
    """

    truth: Callable[[pd.DataFrame, tuple[str, ...]], pd.DataFrame]
    heads: Mapping[str, Head]
    loss: Loss
    decide: Callable[[Array], Array] | None = None
    units: Callable[[pd.DataFrame], Array] | None = None


@dataclass(frozen=True)
class Task:
    """One task: its features, probe and figures.

    `labels` are its label columns on the embedded faces. Without a probe (verification), the features of
    pairs are compared as they are.
    """

    view: View
    figures: Callable[[pd.DataFrame], Figures]
    probe: Probe | None = None
    labels: tuple[str, ...] = ()


def label_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """The labels as floats, NaN where unknown.

    Raises:
        ValueError: the manifest has no such label.
    """
    known = [name.removeprefix("label.") for name in frame.columns if name.startswith("label.")]
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"the manifest has no label {missing[0]!r}; it has: {', '.join(sorted(known)) or 'none'}"
        )
    return pd.DataFrame({name: frame[f"label.{name}"].astype("Float64") for name in names}).astype("float64")


def one_of(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """One label of several classes, one-hot: columns are the classes, as text."""
    label = label_columns(frame, names)[names[0]]
    classes = np.sort(label.dropna().unique())
    one_hot = (label.to_numpy()[:, None] == classes).astype(float)
    one_hot[label.isna()] = np.nan
    return pd.DataFrame(one_hot, index=frame.index, columns=[f"{value:g}" for value in classes])


def landmark_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Landmarks as shares of the image's width and height: columns x0, y0, x1 …

    Raises:
        ValueError: no image has landmarks, or images differ in their number.
    """
    lengths = sorted(int(length) for length in frame["landmarks"].dropna().map(len).unique())
    if len(lengths) != 1:
        raise ValueError(
            "alignment needs landmarks, as many on each image; the manifest has "
            + (f"{' and '.join(str(length // 2) for length in lengths)}" if lengths else "none")
        )
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


def class_figures(rows: pd.DataFrame) -> Figures:
    """Accuracy, balanced accuracy, macro F1 and ROC AUC (mean over classes, each against the rest)."""
    wide = rows.pivot(index="key", columns="output", values=["truth", "prediction", "score"])
    truth, prediction = (wide[column].to_numpy().argmax(axis=1) for column in ("truth", "prediction"))
    ranked = [
        roc_auc_score(wide["truth"][c], wide["score"][c])
        for c in wide["truth"]
        if 0 < wide["truth"][c].mean() < 1
    ]
    return {
        "accuracy": float(accuracy_score(truth, prediction)),
        "balanced_accuracy": float(balanced_accuracy_score(truth, prediction)),
        "macro_f1": float(f1_score(truth, prediction, average="macro")),
        "roc_auc": float(np.mean(ranked)),
    }


def label_figures(rows: pd.DataFrame) -> Figures:
    """Accuracy, balanced accuracy, average precision, ROC AUC: of each label (`metric/label`) and the means.

    A label without both a yes and a no among the known truths has only its accuracy; the other means leave
    it out.
    """
    each: dict[str, Figures] = {}
    for output, label in rows.groupby("output", sort=True):
        truth, prediction = label["truth"].to_numpy(), label["prediction"].to_numpy()
        each[str(output)] = {"accuracy": float(accuracy_score(truth, prediction))}
        if len(np.unique(truth)) == 2:
            each[str(output)] |= {
                "balanced_accuracy": float(balanced_accuracy_score(truth, prediction)),
                "average_precision": float(average_precision_score(truth, label["score"])),
                "roc_auc": float(roc_auc_score(truth, label["score"])),
            }
    names = dict.fromkeys(name for label in each.values() for name in label)
    values = {
        name: {output: label[name] for output, label in each.items() if name in label} for name in names
    }
    means = {name: float(np.mean(list(by_label.values()))) for name, by_label in values.items()}
    return means | {
        f"{name}/{output}": v for name, by_label in values.items() for output, v in by_label.items()
    }


def landmark_figures(rows: pd.DataFrame) -> Figures:
    """NME by outer eye corners, failure rate and AUC of the cumulative error curve at 0.10 and 0.05."""
    error_N = landmark_errors(rows).to_numpy()
    at = {f"fr{100 * t:02.0f}": metrics.failure_rate(error_N, t) for t in (0.10, 0.05)}
    area = {f"auc{100 * t:02.0f}": metrics.area_under_curve(error_N, t) for t in (0.10, 0.05)}
    return {"nme": float(error_N.mean())} | at | area


def landmark_errors(rows: pd.DataFrame) -> pd.Series:
    """The normalised mean error of each image, by key."""
    wide = rows.pivot(index="key", columns="output", values=["truth", "prediction"])
    columns = [f"{axis}{point}" for point in range(rows["output"].nunique() // 2) for axis in "xy"]
    pred, truth = (
        wide[c][columns].to_numpy(dtype=float).reshape(len(wide), -1, 2) for c in ("prediction", "truth")
    )
    return pd.Series(metrics.normalised_mean_error(pred, truth), index=wide.index, name="nme")


def pair_figures(rows: pd.DataFrame) -> Figures:
    """ROC AUC, accuracy at the threshold chosen on validation people, and TAR at FAR 1e-2 and 1e-3."""
    same, score = rows["truth"].to_numpy(), rows["score"].to_numpy()
    figures = {
        "roc_auc": float(roc_auc_score(same, score)),
        "accuracy": float(accuracy_score(same, rows["prediction"])),
        "tar_at_far_1e-2": metrics.true_accepts(score, same, 1e-2),
        "tar_at_far_1e-3": metrics.true_accepts(score, same, 1e-3),
    }
    return {name: value for name, value in figures.items() if not np.isnan(value)}


TASKS: dict[str, Task] = {
    "expression": Task(
        view="pooled",
        figures=class_figures,
        probe=Probe(
            truth=one_of,
            heads={"linear": heads.SOFTMAX, "knn": heads.NEIGHBOURS},
            loss=heads.log_loss,
            decide=highest,
        ),
        labels=("Smiling",),
    ),
    "attributes": Task(
        view="pooled",
        figures=label_figures,
        probe=Probe(
            truth=label_columns,
            heads={"linear": heads.SIGMOIDS, "knn": heads.NEIGHBOURS},
            loss=heads.log_loss,
            decide=likely,
        ),
        labels=("Eyeglasses", "Smiling", "Mouth_Slightly_Open", "Facial_Hair", "Eyes_Closed"),
    ),
    "alignment": Task(
        view="grid",
        figures=landmark_figures,
        probe=Probe(
            truth=landmark_columns,
            heads={"linear": heads.RIDGE, "knn": heads.NEIGHBOURS},
            loss=heads.squared_loss,
            units=image_sizes,
        ),
    ),
    "verification": Task(view="pooled", figures=pair_figures),
}
