"""The figures that docs/demo.md gives of the released weights are those of the predictions beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fra.transfer.recompute import differences

DOCS = Path(__file__).parents[2] / "docs"
FROZEN = {
    "expression, balanced accuracy": ("expression", "balanced_accuracy"),
    "expression, ROC AUC": ("expression", "roc_auc"),
    "attributes, average precision": ("attributes", "average_precision"),
    "alignment, NME (less is better)": ("alignment", "nme"),
    "verification, ROC AUC": ("verification", "roc_auc"),
}
TENTH = {row: figure for row, figure in FROZEN.items() if "ROC" not in row}


def told(row: str, place: int) -> list[list[float]]:
    """The numbers in each cell of a row of docs/demo.md, of the `place`-th table that has it."""
    lines = [line for line in (DOCS / "demo.md").read_text().splitlines() if line.startswith(f"| {row} |")]
    cells = lines[place].replace("−", "-").split("|")[2:-1]
    return [[float(number) for number in re.findall(r"-?\d+\.\d+", cell)] for cell in cells]


def figures(folder: str, task: str, metric: str) -> tuple[dict[str, Any], float]:
    """Of each model and difference; and 100 where the page gives per cent."""
    content = json.loads((DOCS / "evidence" / folder / task / "metrics.json").read_text())
    return {
        name: value[metric] for name, value in content.items() if name != "test"
    }, 100 if metric == "nme" else 1


@pytest.mark.parametrize(("folder", "place", "rows"), [("frozen", 0, FROZEN), ("tenth", 1, TENTH)])
def test_the_page_gives_what_was_predicted(folder: str, place: int, rows: dict[str, tuple[str, str]]) -> None:
    for row, (task, metric) in rows.items():
        found, scale = figures(folder, task, metric)
        ours, *others = told(row, place if row in TENTH else 0)
        close = 0.051 if metric == "nme" else 0.00051
        assert ours[0] == pytest.approx(found["pretrained"]["mean"] * scale, abs=close), row
        for name, cell in zip(("random", "image_level"), others[-2:], strict=True):
            assert cell[0] == pytest.approx(found[name]["mean"] * scale, abs=close), (row, name)
            less = found[f"pretrained - {name}"]
            rough = 0.051 if metric == "nme" else 0.0051
            assert cell[1:] == pytest.approx([less["low"] * scale, less["high"] * scale], abs=rough), (
                row,
                name,
            )


@pytest.mark.parametrize("folder", ["frozen", "tenth"])
def test_its_figures_follow_from_the_predictions(folder: str) -> None:
    tasks = sorted(path.name for path in (DOCS / "evidence" / folder).iterdir())
    assert (
        tasks == ["alignment", "attributes", "expression", "verification"][: 4 if folder == "frozen" else 3]
    )
    for task in tasks:
        assert differences(task, DOCS / "evidence" / folder / task) == []


def test_heatmaps_are_as_told() -> None:
    found = [json.loads((DOCS / f"evidence/regions-{seed}.json").read_text()) for seed in (0, 1, 2)]
    page = (DOCS / "demo.md").read_text()
    for name, row in {
        "pretrained": "heatmaps (released: the first)",
        "features": "k-means of these features",
        "features of data/baselines/image_level.safetensors": "k-means of the image-level features",
    }.items():
        assert f"| {row} | " + ", ".join(f"{seed[name]['nmi']:.3f}" for seed in found) in page
