"""Curves as wide tables for `dvc plots`: one column per model, the mean over seeds, from predictions alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fra.transfer.tasks import TASKS


def curve_tables(task: str, predictions: pd.DataFrame, results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a task by file name: `few_labels`, and `errors` or `roc` where the task has such a curve.

    All are for the first protocol. The first column is `fraction`, `error`, `degrees` or `false_accepts`; the others
    are the models.

    Args:
        task: Name of the task.
        predictions: See `fra.transfer.tasks`.
        results: The task's metrics, from `fra.transfer.results.results`.
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
    """Return a metric by fraction of the training labels: column `fraction`, then one column per model."""
    rows = results[
        (results["metric"] == metric)
        & results["seed"].isna()
        & (results["group"] == "")
        & ~results["model"].str.contains(" - ")
    ]
    table = rows.pivot(index="fraction", columns="model", values="value")[list(rows["model"].unique())]
    return table.reset_index().rename_axis(columns=None)
