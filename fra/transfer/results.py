"""Metrics from predictions alone: values, intervals, differences from baselines, metrics by group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fra.files import write_parquet, write_text
from fra.transfer.config import MINUS, RELEASED
from fra.transfer.metrics import Array
from fra.transfer.tasks.prediction_metrics import Metrics
from fra.transfer.tasks.table import Task, task_of

RUN = ["protocol", "fraction", "seed", "model"]
"""The columns that identify a fit."""

PEOPLE = ["person", "other_person"]
"""The columns with the people of a row; pairs have the second one."""

TYPES = {
    "task": "str",
    "protocol": "str",
    "fraction": "float64",
    "seed": "Int64",
    "model": "str",
    "group": "str",
    "metric": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
}
"""The columns of `results.csv` and their types; `group` is empty for all images, `seed` is null for means."""
GROUP = "group."
"""Prefix of the prediction columns that hold groups."""

RESAMPLES = 1000
ELEMENTS = 1 << 18
"""Largest number of resamples × samples weighted at a time: fits into a core's cache."""


def unweighted(rows: pd.DataFrame) -> list[Array]:
    """Return a single weighting (1, N) in which each row counts once."""
    return [np.ones((1, len(rows)))]


def derived_files(task: str, predictions: pd.DataFrame) -> dict[str, str]:
    """Return the text of each file computed from predictions: `results.csv`, `metrics.json`, `curves/*.csv`."""
    table = results(task, predictions)
    curves = {f"curves/{name}.csv": curve for name, curve in curve_tables(task, predictions, table).items()}
    texts = {name: part.to_csv(index=False) for name, part in ({"results.csv": table} | curves).items()}
    summary = json.dumps(summarise(table, predictions), indent=2, sort_keys=True, allow_nan=False)
    return texts | {"metrics.json": f"{summary}\n"}


def write(task: str, predictions: pd.DataFrame, out: Path) -> dict[str, Any]:
    """Write `predictions.parquet` and the files computed from it; return the content of `metrics.json`."""
    texts = derived_files(task, predictions)
    write_parquet(predictions, out / "predictions.parquet")
    for name, text in texts.items():
        write_text(text, out / name)
    summary: dict[str, Any] = json.loads(texts["metrics.json"])
    return summary


class Resamples:
    """Bootstrap resamples of people, as weights of predictions.

    People are drawn, not images, as images of one person are correlated. A pair of two people has the product of their
    counts as its weight, a pair of images of one person the count of that person.
    """

    def __init__(self, predictions: pd.DataFrame, count: int = RESAMPLES, seed: int = 0) -> None:
        names = [predictions[column] for column in PEOPLE if column in predictions]
        self.people = pd.Index(pd.concat(names).unique()).sort_values()
        chance = np.full(len(self.people), 1 / len(self.people))
        self.drawn_BP = (
            np.random.default_rng(seed).multinomial(len(self.people), chance, size=count).astype(float)
        )

    def weights(self, rows: pd.DataFrame) -> Iterator[Array]:
        """Yield the weight of each row in each resample, several resamples at a time: (B, N) each."""
        person_N, *other = (self.people.get_indexer(rows[c]) for c in PEOPLE if c in rows)
        size = max(1, ELEMENTS // len(rows))
        for first in range(0, len(self.drawn_BP), size):
            drawn_BP = self.drawn_BP[first : first + size]
            weight_BN = drawn_BP[:, person_N]
            for other_N in other:
                weight_BN *= np.where(person_N == other_N, 1.0, drawn_BP[:, other_N])
            yield weight_BN


def results(task: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """Compute all metrics of a task: one row each, with the columns `TYPES`.

    `low` and `high` bound 95 % of the bootstrap resamples of test subjects. A null seed is the mean over seeds, with
    the interval of that mean. Model "a - b" is the difference of the means of two models on the same resamples
    (paired). Groups, where predictions have them, are "<column>=<value>", and by fairlearn "<column>:difference" (the
    largest between two groups) and "<column>:worst".
    """
    entry = task_of(task)
    resamples = Resamples(predictions)
    rows: list[dict[str, Any]] = []
    for (protocol, fraction), part in predictions.groupby(["protocol", "fraction"], sort=False):
        setting = {"task": task, "protocol": protocol, "fraction": fraction}
        for group, members in [("", part), *group_rows(part)]:
            rows += [setting | {"group": group} | row for row in compare(entry, members, resamples)]
        rows += [setting | row for row in group_disparities(entry, part)]
    table = pd.DataFrame(rows, columns=list(TYPES))
    return table.astype({"seed": "Int64"})[table["value"].notna()].reset_index(drop=True)


def compare(task: Task, predictions: pd.DataFrame, resamples: Resamples) -> Iterator[dict[str, Any]]:
    """Yield the metrics of each fit, of each model's mean over seeds, and of the first model minus each other one."""
    values: dict[str, list[Metrics]] = {}
    drawn: dict[str, list[Metrics]] = {}
    for (name, seed), fit in predictions.groupby(["model", "seed"], sort=False):
        model = str(name)
        values.setdefault(model, []).append(task.metrics(fit, unweighted))
        drawn.setdefault(model, []).append(task.metrics(fit, resamples.weights))
        yield from _rows({"seed": seed, "model": model}, values[model][-1], drawn[model][-1])
    means = {model: (_mean(values[model]), _mean(drawn[model])) for model in values}
    for model, (value, draws) in means.items():
        yield from _rows({"seed": None, "model": model}, value, draws)
    first = next(iter(means))
    for other in list(means)[1:]:
        value, draws = (
            {name: mine[name] - theirs[name] for name in mine if name in theirs}
            for mine, theirs in zip(means[first], means[other], strict=True)
        )
        yield from _rows({"seed": None, "model": f"{first}{MINUS}{other}"}, value, draws)


def group_rows(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield "<column>=<value>" and the rows of each group, for columns with at least two groups."""
    for name, known in _group_columns(predictions):
        for value, members in known.groupby(GROUP + name):
            yield f"{name}={value}", members


def group_disparities(task: Task, predictions: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield each metric's worst group and largest difference between groups: of each fit, and the mean over seeds."""
    for name, known in _group_columns(predictions):
        found = [
            {"model": model, "seed": seed, "group": f"{name}:{kind}", "metric": metric, "value": value}
            for (model, seed), fit in known.groupby(["model", "seed"], sort=False)
            for kind, values in _disparity(task, fit, fit[GROUP + name]).items()
            for metric, value in values.items()
        ]
        yield from found
        table = pd.DataFrame(found).groupby(["model", "group", "metric"], sort=False)["value"].mean()
        for row in table.reset_index().to_dict("records"):
            yield {str(key): value for key, value in row.items()} | {"seed": None}


def _group_columns(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and the rows of known group of each group column with at least two groups."""
    for column in (str(name) for name in predictions if str(name).startswith(GROUP)):
        known = predictions[predictions[column].notna()]
        if known[column].nunique() > 1:
            yield column.removeprefix(GROUP), known


def _disparity(task: Task, fit: pd.DataFrame, group: pd.Series) -> dict[str, dict[str, float]]:
    """Worst group and largest difference of each metric of one fit, by fairlearn, except those of single outputs."""
    from fairlearn.metrics import MetricFrame  # imports scikit-learn and SciPy

    image_N = fit.groupby([name for name in ("key", "other") if name in fit], sort=False).ngroup().to_numpy()
    images, first = np.unique(image_N, return_index=True)
    cache: dict[bytes, Metrics] = {}

    def metric_function(metric: str) -> Callable[[Array, Array], float]:
        def of(members: Array, _: Array) -> float:
            if members.tobytes() not in cache:
                cache[members.tobytes()] = task.metrics(fit[np.isin(image_N, members)], unweighted)
            return float(cache[members.tobytes()][metric][0])

        return of

    metrics = [metric for metric in task.metrics(fit, unweighted) if "/" not in metric]
    frame = MetricFrame(
        metrics={metric: metric_function(metric) for metric in metrics},
        y_true=images,
        y_pred=images,
        sensitive_features=group.astype(str).to_numpy()[first],
    )
    low, high, difference = frame.group_min(), frame.group_max(), frame.difference()
    return {
        "worst": {metric: (high if metric in task.lower_is_better else low)[metric] for metric in metrics},
        "difference": {metric: difference[metric] for metric in metrics},
    }


def summarise(table: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Any]:
    """Return the content of `metrics.json`: the first protocol at the largest fraction of labels.

    model → metric → mean and standard deviation (n − 1) over seeds; "a - b" → metric → mean and 95 % interval; and
    "test" → number of test images, people and pairs. Metrics of groups and of single outputs are left out.
    """
    headline = table[
        (table["protocol"] == predictions["protocol"].iloc[0])
        & (table["fraction"] == predictions["fraction"].max())
        & (table["group"] == "")
        & ~table["metric"].str.contains("/")
    ]
    summary: dict[str, Any] = {}
    for (model, metric), rows in headline.groupby(["model", "metric"], sort=False):
        single, mean = rows[rows["seed"].notna()]["value"], rows[rows["seed"].isna()].iloc[0]
        entry = {"mean": float(mean["value"])}
        if len(single):
            entry["std"] = float(single.std()) if len(single) > 1 else 0.0
        else:
            entry |= {"low": float(mean["low"]), "high": float(mean["high"])}
        summary.setdefault(model, {})[metric] = entry
    paired = "other" in predictions
    keys, people = (
        pd.concat([predictions[c] for c in columns[: 1 + paired]]).nunique()
        for columns in (["key", "other"], ["person", "other_person"])
    )
    test = {"images": int(keys), "people": int(people)}
    if paired:
        test["pairs"] = int(predictions.groupby(RUN).size().max())
    return summary | {"test": test}


def _rows(about: dict[str, Any], value: Metrics, drawn: Metrics) -> list[dict[str, Any]]:
    return [
        about | {"metric": metric, "value": float(values[0])} | _interval(drawn[metric])
        for metric, values in value.items()
    ]


def _interval(drawn_B: Array) -> dict[str, float]:
    """Return the middle 95 % of the defined values."""
    defined = drawn_B[~np.isnan(drawn_B)]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) else (np.nan, np.nan)
    return {"low": float(low), "high": float(high)}


def _mean(metrics: list[Metrics]) -> Metrics:
    return {name: np.mean([values[name] for values in metrics], axis=0) for name in metrics[0]}


def curve_tables(task: str, predictions: pd.DataFrame, results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a task by file name: `few_labels`, and `errors` or `roc` where the task has such a curve.

    All are for the first protocol. The first column is `fraction`, `error`, `degrees` or `false_accepts`; the others
    are the models. The model `released`, which some recipes have, is also in a table of its own, `few_labels_released`
    and so on: empty without that model, because `dvc plots` draws nothing where a column is missing.

    Args:
        task: Name of the task.
        predictions: See `fra.transfer.tasks.prediction_metrics`.
        results: The task's metrics, from `fra.transfer.results.results`.
    """
    protocol, curve = predictions["protocol"].iloc[0], task_of(task).curve
    tables = {"few_labels": few_labels(task_of(task).primary, results[results["protocol"] == protocol])}
    if curve is not None:
        part = predictions[predictions["protocol"] == protocol]
        part = part[part["fraction"] == part["fraction"].max()]
        columns = {
            model: np.mean([curve.values(fit, curve.grid) for _, fit in rows.groupby("seed")], axis=0)
            for model, rows in part.groupby("model", sort=False)
        }
        tables[curve.name] = pd.DataFrame({curve.x: curve.grid} | columns)
    return tables | {f"{name}_{RELEASED}": _released(table) for name, table in tables.items()}


def _released(table: pd.DataFrame) -> pd.DataFrame:
    """Return the first column and that of the released weights; no rows without these."""
    place = str(table.columns[0])
    return table[[place, RELEASED]] if RELEASED in table else pd.DataFrame(columns=[place, RELEASED])


def few_labels(metric: str, results: pd.DataFrame) -> pd.DataFrame:
    """Return a metric by fraction of the training labels: column `fraction`, then one column per model."""
    rows = results[
        (results["metric"] == metric)
        & results["seed"].isna()
        & (results["group"] == "")
        & ~results["model"].str.contains(MINUS, regex=False)
    ]
    table = rows.pivot(index="fraction", columns="model", values="value")[list(rows["model"].unique())]
    return table.reset_index().rename_axis(columns=None)
