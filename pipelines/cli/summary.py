"""Headline metrics of a run as a table in the terminal.

python -m pipelines.cli.summary
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from fra.report.artifacts import MINUS
from fra.report.headline import Metric, metric_of
from fra.transfer.config import PRETRAINED
from fra.transfer.tasks import TASKS
from pipelines import params
from pipelines.project import paths


def summary() -> Table:
    """Return the headline metric of each task, mean ± standard deviation over seeds, compared with random weights."""
    table = Table(
        title="Frozen features of test subjects",
        caption="small data: for the limits of these metrics see the report",
    )
    for column in ("task", "metric", "pre-trained", "random weights"):
        table.add_column(column)
    for task in params.read()["tasks"]:
        metrics = json.loads((paths.TRANSFER / task / "metrics.json").read_text(encoding="utf-8"))
        metric = metric_of(TASKS[task].primary)
        cells = [
            f"{metric.text(entry['mean'])} ± {metric.with_unit(entry['std'])}"
            for entry in (metrics[model][TASKS[task].primary] for model in ("pretrained", "random"))
        ]
        table.add_row(task, metric.label, *cells)
    return table


def differences(summaries: Mapping[str, dict[str, Any]]) -> Table:
    """Return the headline metric of each task for every model, and its difference to the pre-trained model.

    Args:
        summaries: Content of metrics.json, by task.
    """
    table = Table("", "mean ± standard deviation over seeds", "pre-trained − this model (95 % interval)")
    for task, metrics in summaries.items():
        name = TASKS[task].primary
        metric = metric_of(name)
        table.add_section()
        table.add_row(f"[bold]{task}[/bold]", f"[bold]{metric.label}[/bold]")
        for model in (model for model in metrics if "std" in metrics[model].get(name, {})):
            entry = metrics[model][name]
            difference = metrics.get(f"{PRETRAINED}{MINUS}{model}", {}).get(name)
            cells = [f"{metric.text(entry['mean'])} ± {metric.with_unit(entry['std'])}"]
            if difference is not None:
                value, low, high = (
                    metric.text(difference[part], signed=True) for part in ("mean", "low", "high")
                )
                cells.append(f"{value} ({low} … {high})")
            table.add_row(model, *cells)
    return table


RULER = {
    "nme": Metric("Landmarks, NME", scale=100, unit="%", digits=2),
    "yaw": Metric("Yaw, mean error", unit="°", digits=2),
    "pitch": Metric("Pitch, mean error", unit="°", digits=2),
    "open_mouth": Metric("Open mouth, ROC AUC"),
    "brow_raise": Metric("Brow raise, R²"),
    "lip_corner_pull": Metric("Lip corner pull, R²"),
    "jaw_drop": Metric("Jaw drop, R²"),
    "mouth_width": Metric("Mouth width, R²"),
}
"""Display format of the ruler's metrics."""


def ruler_table(results: pd.DataFrame) -> Table:
    """Return the ruler's metrics by number of labels; `results` as `fra.ruler.results.compare` returns them.

    Backbones after the first have the 95 % interval of the first minus theirs.
    """
    keys = zip(results["model"], results["metric"], results["labels"], strict=True)
    cells = dict(zip(keys, results[["value", "low", "high"]].itertuples(index=False), strict=True))
    labels = list(results["labels"].unique())
    models = [model for model in results["model"].unique() if MINUS not in model]
    table = Table("", *(f"{count:,} labels" for count in labels))
    for name, metric in RULER.items():
        table.add_section()
        table.add_row(f"[bold]{metric.label}[/bold] {metric.unit}")
        for model in models:
            texts = [metric.text(cells[model, name, count][0]) for count in labels]
            if model != models[0]:
                intervals = [cells[f"{models[0]}{MINUS}{model}", name, count][1:] for count in labels]
                texts = [
                    f"{text} ({metric.text(low, True)} … {metric.text(high, True)})"
                    for text, (low, high) in zip(texts, intervals, strict=True)
                ]
            table.add_row(model, *texts)
    return table


if __name__ == "__main__":
    console = Console()
    console.print(summary())
    console.print(f"report: {paths.REPORT / 'index.html'}")
