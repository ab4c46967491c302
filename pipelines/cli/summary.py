"""Headline metrics of a run as a table in the terminal.

python -m pipelines.cli.summary
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fra.files import read_parquet
from fra.report import headline
from fra.report.artifacts import TaskResult, trained_label
from fra.report.headline import metric_of
from fra.report.sections.data import set_size
from fra.transfer.config import MINUS, PRETRAINED, kind_of
from fra.transfer.tasks.table import task_of
from fra.validation import verdict
from pipelines import params
from pipelines.project import paths


def summary(tasks: Sequence[TaskResult], sets: Sequence[str]) -> Table:
    """Return the headline metric of each task: every model, and the differences with their 95 % intervals.

    Args:
        tasks: The metrics of each task.
        sets: A line for each labelled set (see `labelled_sets`).
    """
    tables = [headline.table(task) for task in tasks]
    first, *others = tables[0].models
    labels = {model: column_title(model, tables[0].trained) for model in tables[0].models}
    table = Table(
        title="Frozen features of test subjects",
        caption="\n".join(caption(tables, sets)),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task")
    for model in (*others, first):
        table.add_column(labels[model], justify="right")
    for other in others:
        table.add_column(f"{labels[first]} −\n{labels[other]}")
    for entry in tables:
        row, paired = entry.primary, {found.other: found for found in entry.primary.differences}
        values = [row.values.get(model, ("–", "")) for model in (*others, first)]
        table.add_row(
            f"[bold]{entry.title.lower()}[/bold] {'↓' if row.lower_is_better else '↑'}\n{short(row)}",
            *(f"{mean} {row.unit}".rstrip() + (f"\n± {std}" if std else "") for mean, std in values),
            *(difference_cell(paired[other]) if other in paired else "–" for other in others),
        )
    return table


def read(folders: Mapping[str, Path], trained: str) -> list[TaskResult]:
    """Return the metrics of tasks from their folders; `trained`: display name of the pre-trained model."""
    return [
        TaskResult(
            task, json.loads((folder / "metrics.json").read_text(encoding="utf-8")), None, folder, trained
        )
        for task, folder in folders.items()
    ]


def column_title(model: str, trained: str) -> str:
    """Return the name of a model for a narrow column."""
    label = headline.model_label(model, trained).removesuffix(" weights")
    return label if label.isupper() else label.lower()


def difference_cell(difference: headline.Difference) -> str:
    """Return a difference with the sign of its conclusion, above its interval."""
    sign, _ = headline.CONCLUSIONS[difference.conclusion]
    return f"{sign} {difference.value}\n{difference.interval.replace(' to ', '…')}"


def short(row: headline.Row) -> str:
    """Return the name of a metric for a narrow column."""
    return "NME" if row.metric == "nme" else row.label


def labelled_sets(tasks: Mapping[str, str], manifests: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return a line for each labelled set: its size, and the tasks that are evaluated on it.

    Args:
        tasks: The set of each task.
        manifests: The usable rows of each set.
    """
    lines = []
    for name, manifest in manifests.items():
        kinds = [kind_of(task) for task, used in tasks.items() if used == name]
        lines.append(f"{set_size(manifest, headline.SETS.get(name, 'photographs'))}: {', '.join(kinds)}.")
    return lines


def caption(tables: Sequence[headline.TaskTable], sets: Sequence[str]) -> list[str]:
    """Return the lines below the table: its data, what was found, and how to read the signs."""
    return [
        *sets,
        *headline.comparisons(tables),
        "▲ better, ▼ worse: the 95 % interval over test subjects excludes 0; ≈ no",
        "clear difference. ± over seeds. ↑ higher, ↓ lower is better. Small data.",
    ]


def differences(summaries: Mapping[str, dict[str, Any]]) -> Table:
    """Return the headline metric of each task for every model, and its difference to the pre-trained model.

    Args:
        summaries: Content of metrics.json, by task.
    """
    table = Table("", "mean ± standard deviation over seeds", "pre-trained − this model (95 % interval)")
    for task, metrics in summaries.items():
        name = task_of(task).primary
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
    values = params.read()
    folders = {task: paths.TRANSFER / task for task in values["tasks"]}
    validations = {task["dataset"]: Path(task["validation"]) for task in values["tasks"].values()}
    usable = {
        name: verdict.usable_rows(
            read_parquet(paths.manifest(name), ["key", "shard", "split", "person"]),
            verdict.read_quarantined_keys(folder / "quarantine.csv"),
        )
        for name, folder in validations.items()
    }
    sets = labelled_sets({name: task["dataset"] for name, task in values["tasks"].items()}, usable)
    console.print(summary(read(folders, trained_label(values)), sets))
    console.print(f"report: {paths.REPORT / 'index.html'}")
