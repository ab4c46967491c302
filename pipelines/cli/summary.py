"""Headline metrics of a run as a table in the terminal.

python -m pipelines.cli.summary
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fra.report.artifacts import MINUS
from fra.report.headline import metric_of
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


if __name__ == "__main__":
    console = Console()
    console.print(summary())
    console.print(f"report: {paths.REPORT / 'index.html'}")
