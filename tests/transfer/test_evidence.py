"""The metrics in the README and in docs/results equal those computed from the stored predictions."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fra.transfer.recompute import differences
from pipelines.cli import summary

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / "docs/results"
FROZEN = {
    "expression, balanced accuracy": ("expression", "balanced_accuracy"),
    "expression, ROC AUC": ("expression", "roc_auc"),
    "attributes, average precision": ("attributes", "average_precision"),
    "alignment, NME (less is better)": ("alignment", "nme"),
    "verification, ROC AUC": ("verification", "roc_auc"),
}
TENTH = {row: metric for row, metric in FROZEN.items() if "ROC" not in row}
EQUAL = {
    row.replace(",", ", shorter,"): metric for row, metric in FROZEN.items() if "expression, ROC" not in row
}
FOLDERS = {"frozen": FROZEN, "tenth": TENTH, "equal": EQUAL}
PAGES = {"frozen": "released-weights.md", "tenth": "recipe-search.md", "equal": "released-weights.md"}
OTHERS = {
    "frozen": ("random", "image_level"),
    "tenth": ("random", "image_level"),
    "equal": ("random", "image_level", "equal_steps"),
}
"""Models that FRA is compared with, in the order of the columns."""


def stated(row: str, folder: str) -> list[list[float]]:
    """The numbers in each cell of a row of the page that shows the folder's metrics."""
    lines = (DOCS / PAGES[folder]).read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {row} |")]
    cells = line.replace("−", "-").split("|")[2:-1]
    return [[float(number) for number in re.findall(r"-?\d+\.\d+", cell)] for cell in cells]


@pytest.mark.parametrize(("folder", "row"), [(folder, row) for folder in FOLDERS for row in FOLDERS[folder]])
def test_the_pages_state_what_was_predicted(folder: str, row: str) -> None:
    task, metric = FOLDERS[folder][row]
    scale, rough, close = (
        (100, 0.051, 0.051) if metric == "nme" else (1, 0.0051, 0.00051)
    )  # per cent, or a share
    content = json.loads((DOCS / "evidence" / folder / task / "metrics.json").read_text())
    found = {name: value[metric] for name, value in content.items() if name != "test"}
    ours, *cells = stated(row, folder)
    released, others = cells[: -len(OTHERS[folder])], cells[-len(OTHERS[folder]) :]
    for number, wanted in zip(ours, ("mean", "std"), strict=False):  # not every row gives the deviation
        assert number == pytest.approx(found["pretrained"][wanted] * scale, abs=close)
    for (seed_0,) in released:
        table = pd.read_csv(DOCS / "evidence" / folder / task / "results.csv")
        first = table.query("model == 'pretrained' and metric == @metric and seed < 3")["value"]
        assert seed_0 == pytest.approx(first.mean() * scale, abs=close)
    for name, cell in zip(OTHERS[folder], others, strict=True):
        difference = found[f"pretrained - {name}"]
        assert cell[0] == pytest.approx(found[name]["mean"] * scale, abs=close), name
        assert cell[1:] == pytest.approx(
            [difference["low"] * scale, difference["high"] * scale], abs=rough
        ), name


@pytest.mark.parametrize(
    "folder", [*FOLDERS, *(pytest.param(name, marks=pytest.mark.slow) for name in ("demo", "released"))]
)
def test_stored_metrics_follow_from_the_predictions(folder: str) -> None:
    tasks = {task for task, _ in FOLDERS.get(folder, FROZEN).values()}
    assert {path.name for path in (DOCS / "evidence" / folder).iterdir()} == tasks
    for task in tasks:
        assert differences(task, DOCS / "evidence" / folder / task) == []


def test_the_pages_state_the_region_quality() -> None:
    found = [json.loads((DOCS / f"evidence/regions-{seed}.json").read_text()) for seed in (0, 1, 2)]
    page = (DOCS / PAGES["tenth"]).read_text()
    for name, row in {
        "pretrained": "heatmaps (released: the first)",
        "features": "k-means of these features",
        "features of data/baselines/image_level.safetensors": "k-means of the image-level features",
    }.items():
        assert f"| {row} | " + ", ".join(f"{seed[name]['nmi']:.3f}" for seed in found) in page
    summary = (DOCS / PAGES["frozen"]).read_text()
    for name, words in {
        "pretrained": "heatmaps {:.3f} (mean of three seeds)",
        "features": "k-means of the features under the heatmaps {:.3f}",
        "features of data/baselines/image_level.safetensors": "of image-level features {:.3f}",
    }.items():
        assert words.format(sum(seed[name]["nmi"] for seed in found) / len(found)) in summary.replace(
            "\n", " "
        )


def test_the_page_states_the_metrics_of_the_released_weights() -> None:
    found = {
        task: json.loads((DOCS / "evidence/released" / task / "metrics.json").read_text())["pretrained"][
            metric
        ]["mean"]
        for task, metric in FROZEN.values()
        if metric != "roc_auc" or task == "verification"
    }
    words = (
        (
            f"attributes {found['attributes']:.3f} (0.521), landmarks {found['alignment']:.1%} (6.7 %), verification "
            f"{found['verification']:.3f} (0.923); **expression {found['expression']:.1%} (58.1 %)**"
        )
        .replace("%", " %")
        .replace("  %", " %")
    )
    assert words in " ".join((DOCS / PAGES["frozen"]).read_text().split())


def test_the_readme_shows_the_table_of_the_demo() -> None:
    """As the command prints it from the stored metrics."""
    folders = {
        task: DOCS / "evidence/demo" / task
        for task in ("expression", "attributes", "alignment", "verification")
    }
    console = Console(width=80, file=StringIO())
    people = pd.DataFrame({"person": [f"{photograph % 40}" for photograph in range(400)]})
    sets = summary.labelled_sets(dict.fromkeys(folders, "orl"), {"orl": people})
    console.print(summary.summary(summary.read(folders, "Adapted"), sets))
    printed = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
    assert f"```text\n{printed}\n```" in README.read_text(encoding="utf-8")


def test_the_readme_states_the_region_quality_of_the_demo() -> None:
    found = json.loads((DOCS / "evidence/regions-demo.json").read_text())
    heatmaps, colours = (found[name]["nmi"] for name in ("pretrained", "colours"))
    words = f"{heatmaps / colours:.1f} times as well as colours do (NMI {heatmaps:.3f} compared with {colours:.3f})"
    assert words in " ".join(README.read_text(encoding="utf-8").split())
