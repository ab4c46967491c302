"""Curves as wide tables that `dvc plots` draws: one column a model, the mean over seeds, from predictions alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fra.transfer.tasks import TASKS


def draw(task: str, predictions: pd.DataFrame, results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file name: `few_labels`, and the task's own curve (`errors` or `roc`) where it has one.

    All are of the first protocol; a column of each model beside `fraction`, `error`, `degrees` or
    `false_accepts`. `results` are the task's figures (`fra.transfer.results.results`).
    """
    protocol, curve = predictions["protocol"].iloc[0], TASKS[task].curve
    tables = {"few_labels": few_labels(TASKS[task].primary, results[results["protocol"] == protocol])}
    if curve is not None:
        part = predictions[predictions["protocol"] == protocol]
        part = part[part["fraction"] == part["fraction"].max()]
        columns = {
            model: np.mean([curve.values(fit, curve.grid) for _, fit in rows.groupby("seed")], axis=0)
            for model, rows in part.groupby("model", sort=False)
        }
        tables[curve.name] = pd.DataFrame({curve.x: curve.grid} | columns)
    return tables


def few_labels(metric: str, results: pd.DataFrame) -> pd.DataFrame:
    """The task's primary figure by the share of training labels that was used: fraction, then the models."""
    rows = results[
        (results["metric"] == metric)
        & results["seed"].isna()
        & (results["group"] == "")
        & ~results["model"].str.contains(" - ")
    ]
    table = rows.pivot(index="fraction", columns="model", values="value")[list(rows["model"].unique())]
    return table.reset_index().rename_axis(columns=None)
