"""The ruler's results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.table import Table

from fra.report.headline import Metric
from fra.transfer.config import MINUS

MODELS = 8
"""Least number of models of which correlations are computed: over fewer, their intervals say nothing."""

METRICS = {
    "nme": Metric("Landmarks, NME", scale=100, unit="%", digits=2),
    "yaw": Metric("Yaw, mean error", unit="°", digits=2),
    "pitch": Metric("Pitch, mean error", unit="°", digits=2),
    "open_mouth": Metric("Open mouth, ROC AUC"),
    "brow_raise": Metric("Brow raise, R²"),
    "lip_corner_pull": Metric("Lip corner pull, R²"),
    "jaw_drop": Metric("Jaw drop, R²"),
    "mouth_width": Metric("Mouth width, R²"),
    "photographs": Metric("Landmarks of photographs, NME", scale=100, unit="%", digits=2),
}
"""Display format of the ruler's metrics."""

MEASURES = {
    "rankme": "RankMe ↑",
    "alignment": "alignment ↓",
    "uniformity": "uniformity ↓",
    "alpha_req": "α-ReQ → 1",
}
"""Display names of the label-free measures."""


def metrics(results: pd.DataFrame) -> Table:
    """Return the ruler's metrics by number of labels; `results` as `fra.ruler.results.table` returns them.

    Backbones after the first have the 95 % interval of the first minus theirs, over faces, and with several seeds
    also over seeds.
    """
    keys = zip(results["model"], results["metric"], results["labels"], strict=True)
    rows = dict(zip(keys, results.to_dict("records"), strict=True))
    labels = list(results["labels"].unique())
    models = [model for model in results["model"].unique() if MINUS not in model]
    table = Table("", *(f"{count:,} labels" for count in labels))
    measured = set(results["metric"])
    for name, metric in ((name, metric) for name, metric in METRICS.items() if name in measured):
        table.add_section()
        table.add_row(f"[bold]{metric.label}[/bold] {metric.unit}")
        for model in (model for model in models if (model, name, labels[0]) in rows):
            cells = []
            for count in labels:
                row = rows[model, name, count]
                cell = metric.text(row["value"])
                if (paired := rows.get((f"{models[0]}{MINUS}{model}", name, count))) is not None:
                    cell += f" ({interval(metric, paired['low'], paired['high'])}"
                    if not pd.isna(paired["seed_low"]):
                        cell += f"; seeds {interval(metric, paired['seed_low'], paired['seed_high'])}"
                    cell += ")"
                cells.append(cell)
            seeds = max(rows[model, name, count]["seeds"] for count in labels)
            table.add_row(f"{model}, {seeds} seeds" if seeds > 1 else model, *cells)
    return table


def interval(metric: Metric, low: float, high: float) -> str:
    """Return the bounds of a difference as text."""
    return f"{metric.text(low, True)} … {metric.text(high, True)}"


def measures(measured: pd.DataFrame) -> Table:
    """Return the label-free measures of each backbone, on the validation faces."""
    table = Table("label-free measures", *MEASURES.values())
    for row in measured.to_dict("records"):
        seeds = measured["model"].value_counts()[row["model"]]
        name = f"{row['model']}, seed {row['seed']}" if seeds > 1 else str(row["model"])
        table.add_row(name, *(f"{row[measure]:.2f}" for measure in MEASURES))
    return table


def correlations(found: pd.DataFrame) -> Table:
    """Return how well each measure predicts each metric over the models, with the largest number of labels.

    `found` as `fra.ruler.results.correlations` returns it.
    """
    labels = found["labels"].max()
    table = Table(f"rank correlation, {labels:,} labels", *MEASURES.values())
    for row in found[found["labels"] == labels].to_dict("records"):
        cells = (
            f"{row[measure]:+.2f}\n{row[f'{measure}_low']:+.2f}…{row[f'{measure}_high']:+.2f}".replace(
                "-", "−"
            )
            for measure in MEASURES
        )
        table.add_row(f"{METRICS[str(row['metric'])].label}\n95 %, {row['models']} backbones", *cells)
    return table


def conclusions(differences: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each model that the first is compared with: in what it is better or worse beyond chance."""
    for model, part in differences.groupby("model", sort=False):
        ours, theirs = str(model).split(MINUS, 1)
        words = []
        for sign, word in ((1, "better"), (-1, "worse")):
            rows = part[part["conclusion"] == sign]
            names = [
                f"{METRICS[str(name)].label} ({', '.join(f'{count:,}' for count in of_metric['labels'])})"
                for name, of_metric in rows.groupby("metric", sort=False)
            ]
            words.append(f"{word} beyond chance in {'; '.join(names) or 'nothing'}")
        yield f"{ours} compared with {theirs} (labels in brackets): {'. '.join(words)}."
