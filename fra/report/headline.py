"""Metrics as text: name and unit, values of all models, differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fra.report.artifacts import TaskResult
from fra.transfer.config import MINUS, kind_of
from fra.transfer.tasks.table import TASKS, task_of

MODELS = {"random": "Random weights", "released": "Released weights"}
"""Display names of models; others, except the pre-trained one, are displayed by their own name."""

CONCLUSIONS = {
    "better": ("▲", "better"),
    "worse": ("▼", "worse"),
    "unclear": ("≈", "no clear difference"),
}
"""Sign and words of the conclusions of a difference."""

SETS = {"synthetic": "synthetic faces, pseudo-labels"}
"""What further labelled sets are, by the name of their tasks before the "-"."""

PRIMARY = {name: task.primary for name, task in TASKS.items()}
"""The headline metric of each task."""


@dataclass(frozen=True)
class Metric:
    """Display format of a metric: a value is multiplied by `scale` (100 for per cent) and rounded to `digits`."""

    label: str
    scale: float = 1
    unit: str = ""
    digits: int = 3

    def text(self, value: float, signed: bool = False) -> str:
        """Return the value without its unit."""
        number = f"{value * self.scale:{'+' if signed else ''}z.{self.digits}f}"
        return number.replace("-", "−")

    def with_unit(self, value: float) -> str:
        """Return the value with its unit."""
        return f"{self.text(value)} {self.unit}".strip()


def _percent(label: str) -> Metric:
    return Metric(label, scale=100, unit="%", digits=1)


METRICS = {
    "accuracy": _percent("Accuracy"),
    "balanced_accuracy": _percent("Balanced accuracy"),
    "macro_f1": Metric("Macro F1"),
    "f1": Metric("F1"),
    "average_precision": Metric("Average precision"),
    "roc_auc": Metric("ROC AUC"),
    "nme": _percent("Normalised mean error"),
    "fr10": _percent("Failure rate at 10 %"),
    "auc10": Metric("AUC of errors to 10 %"),
    "fr05": _percent("Failure rate at 5 %"),
    "auc05": Metric("AUC of errors to 5 %"),
    "tar_at_far_1e-2": _percent("True accepts at 1 % false"),
    "tar_at_far_1e-3": _percent("True accepts at 0.1 % false"),
    "angular_error": Metric("Angular error", unit="°", digits=1),
    "angle_error": Metric("Mean error of yaw and pitch", unit="°", digits=2),
    "r_squared": Metric("R²"),
}
"""Display format by metric, in the order in which the page lists the metrics of a task."""


@dataclass(frozen=True)
class Difference:
    """Difference of the reference model and another, as text; `conclusion` is a key of `CONCLUSIONS`.

    `ahead` is whether the reference model has the better mean.
    """

    other: str
    value: str
    interval: str
    conclusion: str
    ahead: bool


@dataclass(frozen=True)
class Row:
    """One metric of one task; `values` are mean and standard deviation over seeds (empty for one seed) by model."""

    metric: str
    label: str
    unit: str
    lower_is_better: bool
    values: dict[str, tuple[str, str]]
    differences: list[Difference]


@dataclass(frozen=True)
class TaskTable:
    """All metrics of one task; `primary` is the row of its headline metric."""

    name: str
    title: str
    about: str
    models: list[str]
    rows: list[Row]
    trained: str = "FRA"

    @property
    def primary(self) -> Row:
        """The row of the headline metric."""
        wanted = PRIMARY.get(kind_of(self.name))
        return next((row for row in self.rows if row.metric == wanted), self.rows[0])


def model_label(name: str, trained: str = "FRA") -> str:
    """Return the display name of a model; `trained` is that of the pre-trained one."""
    return trained if name == "pretrained" else MODELS.get(name, _sentence(name))


def metric_of(name: str) -> Metric:
    """Return the display format of a metric; an unknown one is displayed by its own name."""
    return METRICS.get(name, Metric(_sentence(name)))


def task_title(name: str) -> str:
    """Return the display name of a task; that of a further labelled set has the set in parentheses."""
    further, _, kind = name.rpartition("-")
    return f"{_sentence(kind)} ({SETS.get(further, further)})" if further else _sentence(kind)


def further_sets(tasks: Sequence[str]) -> list[str]:
    """Return what the images of further labelled sets are, by their tasks."""
    names = dict.fromkeys(name.rpartition("-")[0] for name in tasks)
    return [SETS.get(name, name) for name in names if name]


def table(task: TaskResult) -> TaskTable:
    """Return the metrics of one task.

    Raises:
        ValueError: Its metrics.json has no model with metrics.
    """
    models = task.models
    names = [name for model in models for name in task.metrics[model]]
    if not names:
        raise ValueError(
            f"the metrics of the task {task.name} are empty; run the stage transfer@{task.name} again"
        )
    order = {name: rank for rank, name in enumerate(METRICS)}
    ranked = sorted(set(names), key=lambda name: (order.get(name, len(order)), name))
    return TaskTable(
        name=task.name,
        title=task_title(task.name),
        about=_about(task),
        models=models,
        rows=[_row(task, name, models) for name in ranked],
        trained=task.trained,
    )


def comparisons(tables: Sequence[TaskTable]) -> list[str]:
    """Return a sentence on each model that the reference model is compared with, over the headline metrics of tasks."""
    found: dict[str, list[tuple[str, Difference]]] = {}
    for table in tables:
        for difference in table.primary.differences:
            found.setdefault(difference.other, []).append((table.title.lower(), difference))
    label = model_label(tables[0].models[0], tables[0].trained) if tables else ""
    return [
        f"{label} compared with {model_label(other).lower()}: {_outcome(rows)}."
        for other, rows in found.items()
    ]


def _outcome(rows: Sequence[tuple[str, Difference]]) -> str:
    clear: dict[str, list[str]] = {"better": [], "worse": [], "unclear": []}
    for name, difference in rows:
        clear[difference.conclusion].append(name)
    ahead = sum(difference.ahead for _, difference in rows)
    parts = [f"better on average in {ahead} of {len(rows)} tasks"]
    parts += [
        f"{word} beyond chance in {len(names)} ({', '.join(names)})"
        for word, names in (("better", clear["better"]), ("worse", clear["worse"]))
        if names
    ]
    if not clear["better"] and not clear["worse"]:
        parts.append("no difference beyond chance")
    return ", ".join(parts)


def lower_is_better(task: str, metric: str) -> bool:
    """Return whether lower values of a metric are better, as for errors."""
    return kind_of(task) in TASKS and metric in task_of(task).lower_is_better


def _row(task: TaskResult, name: str, models: list[str]) -> Row:
    metric, lower = metric_of(name), lower_is_better(task.name, name)
    values = {
        model: (metric.text(entry["mean"]), "" if task.seeds == 1 else metric.text(entry["std"]))
        for model in models
        if (entry := task.metrics[model].get(name)) is not None
    }
    differences = [
        _difference(pair.split(MINUS, 1)[1], entries[name], metric, lower)
        for pair, entries in task.metrics.items()
        if MINUS in pair and name in entries
    ]
    return Row(name, metric.label, metric.unit, lower, values, differences)


def _difference(other: str, entry: dict[str, Any], metric: Metric, lower: bool) -> Difference:
    """Return a difference; it is "unclear" if its 95 % interval contains 0. `lower`: lower values are better."""
    low, high = (-entry["high"], -entry["low"]) if lower else (entry["low"], entry["high"])
    conclusion = "better" if low > 0 else "worse" if high < 0 else "unclear"
    interval = f"{metric.text(entry['low'], signed=True)} to {metric.text(entry['high'], signed=True)}"
    ahead = entry["mean"] < 0 if lower else entry["mean"] > 0
    return Difference(other, metric.text(entry["mean"], signed=True), interval, conclusion, ahead)


def _sentence(name: str) -> str:
    """Return a name in code as words, the first letter upper case."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _about(task: TaskResult) -> str:
    """Return protocol and numbers of test images, people, pairs and seeds as text."""
    test = task.metrics.get("test", {})
    counts = [] if task.results is None else [f"{task.results['protocol'].iloc[0]} protocol"]
    known = test.get("people") != test.get("images")  # of unknown people, each image counts as one
    names = ("images", "people") if known else ("images",)
    counts += [f"{test[name]:,} test {name}" for name in names if name in test]
    if "pairs" in test:
        counts.append(f"{test['pairs']:,} pairs")
    if task.seeds is not None:
        counts.append("1 seed" if task.seeds == 1 else f"{task.seeds} seeds")
    return ", ".join(counts)
