"""The table of tasks: what each predicts, with which heads, from which features, and which metrics it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fra.transfer import finetune, heads
from fra.transfer.config import kind_of
from fra.transfer.features import View
from fra.transfer.finetune import Objective
from fra.transfer.heads import Array, Head, Loss
from fra.transfer.tasks.prediction_metrics import (
    Metrics,
    Weights,
    action_metrics,
    angle_metrics,
    class_metrics,
    direction_curve,
    direction_metrics,
    label_metrics,
    landmark_curve,
    landmark_metrics,
    pair_curve,
    pair_metrics,
)
from fra.transfer.tasks.truths import (
    binary_labels,
    coordinate_scales,
    directions,
    label_columns,
    landmark_columns,
    one_hot_classes,
)


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


def argmax_one_hot(score_NO: Array) -> Array:
    """Return 1 for the output of the highest score and 0 for the others: (N, O)."""
    chosen_NO: Array = (np.arange(score_NO.shape[1]) == score_NO.argmax(axis=1)[:, None]).astype(float)
    return chosen_NO


def at_least_half(score_NO: Array) -> Array:
    """Return 1 for probabilities of at least one half, else 0: (N, O)."""
    chosen_NO: Array = (score_NO >= 0.5).astype(float)
    return chosen_NO


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
