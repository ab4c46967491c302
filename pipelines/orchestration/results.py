"""Tables of results for Prefect's interface: the main metric of each task, and all metrics with their changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pipelines.project import paths

Row: TypeAlias = dict[str, Any]

NEW = "new"
"""The change of a metric that the table of the last run does not have."""


def headline(results: Path = paths.RESULTS, transfer: Path = paths.TRANSFER) -> list[Row]:
    """Returns one row for each task: its main metric, and the difference to random weights with its 95 % interval.

    Args:
        results: the main metric of each task, as the stage `report` writes it.
        transfer: the folder with the metrics of each task.
    """
    if not results.is_file():
        return []
    rows = []
    for task, values in load(results).items():
        metrics = transfer / task / "metrics.json"
        if not metrics.is_file():
            continue  # pre-training, which is not a task
        summary = load(metrics)
        name = next(key for key in values if key in summary["pretrained"])
        difference = summary.get("pretrained - random", {}).get(name, {})
        interval = [difference[bound] for bound in ("low", "high") if bound in difference]
        rows.append(
            {
                "task": task,
                "metric": name,
                "value": round(values[name], 4),
                "± over seeds": round(summary["pretrained"][name]["std"], 4),
                "random weights": round(values["random"], 4),
                "difference": round(values[name] - values["random"], 4),
                "95 % interval": " … ".join(f"{bound:+.4f}" for bound in interval),
            }
        )
    return rows


def all_metrics(pretrain: Path = paths.PRETRAIN, transfer: Path = paths.TRANSFER) -> list[Row]:
    """Returns one row for each metric of each model: first those of the tasks, then those of pre-training."""
    rows = []
    for path in [*sorted(transfer.glob("*/metrics.json")), pretrain / "metrics.json"]:
        for model, metrics in (load(path) if path.is_file() else {}).items():
            values = metrics if isinstance(metrics, dict) else {model: metrics}
            for metric, value in values.items():
                number = value.get("mean") if isinstance(value, dict) else value
                if isinstance(number, int | float) and not isinstance(number, bool):
                    name = model if isinstance(metrics, dict) else ""
                    rows.append(
                        {
                            "stage": path.parent.name,
                            "model": name,
                            "metric": metric,
                            "value": round(float(number), 6),
                        }
                    )
    return rows


def with_changes(rows: list[Row], before: list[Row], keys: tuple[str, ...]) -> list[Row]:
    """Returns the rows with a column "change", which follows "value": the difference to the table of the last run.

    Args:
        rows: the table.
        before: the same table of the last run; [] if there is none.
        keys: the columns that identify a row.
    """
    old = {tuple(row.get(key) for key in keys): row.get("value") for row in before}

    def changed(row: Row) -> Row:
        value = old.get(tuple(row[key] for key in keys))
        change = round(row["value"] - value, 6) if isinstance(value, int | float) else NEW
        named = {}
        for column, cell in row.items():
            named[column] = cell
            if column == "value":
                named["change"] = change
        return named

    return [changed(row) for row in rows]


def load(path: Path) -> Mapping[str, Any]:
    """Returns the content of a JSON file."""
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
