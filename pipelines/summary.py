"""After a run: a table of results in the terminal, and where the report is.

python -m pipelines.summary
"""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from pipelines import params, paths

HEADLINE = {
    "expression": ("roc_auc", "{:.3f}"),
    "attributes": ("average_precision", "{:.3f}"),
    "alignment": ("nme", "{:.2%}"),
    "verification": ("roc_auc", "{:.3f}"),
}
"""The one figure of each task that goes into the table."""


def summary() -> Table:
    """The headline figure of each task: mean ± standard deviation over seeds, beside random weights."""
    table = Table(
        title="Frozen features of unseen people", caption="small data: see the report for what these can say"
    )
    for column in ("task", "figure", "pre-trained", "random weights"):
        table.add_column(column)
    for task in params.read()["tasks"]:
        metrics = json.loads((paths.TRANSFER / task / "metrics.json").read_text(encoding="utf-8"))
        name, form = HEADLINE[task]
        figures = [
            f"{form.format(metrics[model][name]['mean'])} ± {form.format(metrics[model][name]['std'])}"
            for model in ("pretrained", "random")
        ]
        table.add_row(task, name.replace("_", " "), *figures)
    return table


if __name__ == "__main__":
    console = Console()
    console.print(summary())
    console.print(f"report: {paths.REPORT / 'index.html'}")
