"""From predictions alone to figures: values, intervals, differences to baselines, figures by group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame

from fra.files import write_parquet, write_text
from fra.transfer.curves import draw
from fra.transfer.metrics import Array
from fra.transfer.tasks import TASKS, Figures, Task

PRETRAINED, RANDOM = "pretrained", "random"
"""Names of the models that every task compares: the pre-trained backbone, and the same with random weights."""
RUN = ["protocol", "fraction", "seed", "model"]
"""The columns that tell fits apart."""

PEOPLE = ["person", "other_person"]
"""The columns that say who is seen; the second one of pairs only."""

COLUMNS = ["task", *RUN, "group", "metric", "value", "low", "high"]
GROUP = "group."
"""Prefix of the prediction columns that hold groups."""

RESAMPLES = 1000
ELEMENTS = 1 << 18
"""Resamples times samples that are weighed at a time: what stays in a core's cache."""


def plain(rows: pd.DataFrame) -> list[Array]:
    """Each row once: one weighting, (1, N)."""
    return [np.ones((1, len(rows)))]


def files(task: str, predictions: pd.DataFrame) -> dict[str, str]:
    """All that is written beside the predictions, by file name: `results.csv`, `metrics.json`, `curves/*.csv`."""
    table = results(task, predictions)
    curves = {f"curves/{name}.csv": curve for name, curve in draw(task, predictions, table).items()}
    texts = {name: part.to_csv(index=False) for name, part in ({"results.csv": table} | curves).items()}
    summary = json.dumps(summarise(table, predictions), indent=2, sort_keys=True, allow_nan=False)
    return texts | {"metrics.json": f"{summary}\n"}


def write(task: str, predictions: pd.DataFrame, out: Path) -> dict[str, Any]:
    """Write `predictions.parquet` and all that follows from it into `out`; the content of its `metrics.json`."""
    texts = files(task, predictions)
    write_parquet(predictions, out / "predictions.parquet")
    for name, text in texts.items():
        write_text(text, out / name)
    summary: dict[str, Any] = json.loads(texts["metrics.json"])
    return summary


class Resamples:
    """Bootstrap resamples of people: how often each prediction counts in each.

    People are drawn, not images, since images of one person are alike. A pair of two people counts as often
    as one was drawn times the other, a pair of one person's as often as that person.
    """

    def __init__(self, predictions: pd.DataFrame, count: int = RESAMPLES, seed: int = 0) -> None:
        names = [predictions[column] for column in PEOPLE if column in predictions]
        self.people = pd.Index(pd.concat(names).unique()).sort_values()
        chance = np.full(len(self.people), 1 / len(self.people))
        self.drawn_BP = (
            np.random.default_rng(seed).multinomial(len(self.people), chance, size=count).astype(float)
        )

    def weights(self, rows: pd.DataFrame) -> Iterator[Array]:
        """How often each row counts in each resample, some at a time: (B, N) each."""
        person_N, *other = (self.people.get_indexer(rows[c]) for c in PEOPLE if c in rows)
        size = max(1, ELEMENTS // len(rows))
        for first in range(0, len(self.drawn_BP), size):
            drawn_BP = self.drawn_BP[first : first + size]
            weight_BN = drawn_BP[:, person_N]
            for other_N in other:
                weight_BN *= np.where(person_N == other_N, 1.0, drawn_BP[:, other_N])
            yield weight_BN


def results(task: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """Every figure, one a row: task, protocol, fraction, seed, model, group, metric, value, low, high.

    `low` and `high` bound 95 % of the bootstrap resamples of test people. A null seed is the mean over
    seeds, with the interval of that mean. Model "a - b" is the difference of the means of two models on the
    same resamples (paired). Groups, where predictions have them: "<column>=<value>", and
    "<column>:difference" (largest between two groups) and "<column>:worst", by fairlearn.
    """
    entry = TASKS[task]
    resamples = Resamples(predictions)
    rows: list[dict[str, Any]] = []
    for (protocol, fraction), part in predictions.groupby(["protocol", "fraction"], sort=False):
        setting = {"task": task, "protocol": protocol, "fraction": fraction}
        for group, members in [("", part), *groups(part)]:
            rows += [setting | {"group": group} | row for row in compare(entry, members, resamples)]
        rows += [setting | row for row in spreads(entry, part)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"seed": "Int64"})[table["value"].notna()].reset_index(drop=True)


def compare(task: Task, predictions: pd.DataFrame, resamples: Resamples) -> Iterator[dict[str, Any]]:
    """Each fit, each model's mean over seeds, and the first model less each other: with intervals."""
    values: dict[str, list[Figures]] = {}
    drawn: dict[str, list[Figures]] = {}
    for (name, seed), fit in predictions.groupby(["model", "seed"], sort=False):
        model = str(name)
        values.setdefault(model, []).append(task.figures(fit, plain))
        drawn.setdefault(model, []).append(task.figures(fit, resamples.weights))
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
        yield from _rows({"seed": None, "model": f"{first} - {other}"}, value, draws)


def groups(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """ "<column>=<value>" and its rows, for each group of each column with at least two."""
    for name, known in _grouped(predictions):
        for value, members in known.groupby(GROUP + name):
            yield f"{name}={value}", members


def spreads(task: Task, predictions: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of each fit and figure the worst group, and the largest difference between two; and their means over seeds."""
    for name, known in _grouped(predictions):
        found = [
            {"model": model, "seed": seed, "group": f"{name}:{kind}", "metric": metric, "value": value}
            for (model, seed), fit in known.groupby(["model", "seed"], sort=False)
            for kind, values in _spread(task, fit, fit[GROUP + name]).items()
            for metric, value in values.items()
        ]
        yield from found
        table = pd.DataFrame(found).groupby(["model", "group", "metric"], sort=False)["value"].mean()
        for row in table.reset_index().to_dict("records"):
            yield {str(key): value for key, value in row.items()} | {"seed": None}


def _grouped(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each column of groups by its name, and the rows whose group is known; only where there are two or more."""
    for column in (str(name) for name in predictions if str(name).startswith(GROUP)):
        known = predictions[predictions[column].notna()]
        if known[column].nunique() > 1:
            yield column.removeprefix(GROUP), known


def _spread(task: Task, fit: pd.DataFrame, group: pd.Series) -> dict[str, dict[str, float]]:
    """fairlearn's worst group and largest difference of each figure of one fit (not those of single outputs)."""
    image_N = fit.groupby([name for name in ("key", "other") if name in fit], sort=False).ngroup().to_numpy()
    images, first = np.unique(image_N, return_index=True)
    seen: dict[bytes, Figures] = {}

    def figure(metric: str) -> Callable[[Array, Array], float]:
        def of(members: Array, _: Array) -> float:
            if members.tobytes() not in seen:
                seen[members.tobytes()] = task.figures(fit[np.isin(image_N, members)], plain)
            return float(seen[members.tobytes()][metric][0])

        return of

    metrics = [metric for metric in task.figures(fit, plain) if "/" not in metric]
    frame = MetricFrame(
        metrics={metric: figure(metric) for metric in metrics},
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
    """What `metrics.json` holds, of the first protocol at the largest fraction.

    model → metric → mean and standard deviation (n − 1) over seeds; "a - b" → metric → mean and 95 %
    interval; and the number of test images, people (and pairs). Figures of groups and of single labels are
    left out.
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


def _rows(about: dict[str, Any], value: Figures, drawn: Figures) -> list[dict[str, Any]]:
    return [
        about | {"metric": metric, "value": float(figure[0])} | _interval(drawn[metric])
        for metric, figure in value.items()
    ]


def _interval(drawn_B: Array) -> dict[str, float]:
    """The middle 95 % of what is defined."""
    defined = drawn_B[~np.isnan(drawn_B)]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) else (np.nan, np.nan)
    return {"low": float(low), "high": float(high)}


def _mean(figures: list[Figures]) -> Figures:
    return {name: np.mean([figure[name] for figure in figures], axis=0) for name in figures[0]}
