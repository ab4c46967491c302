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
PRIMARY = {
    "expression": "balanced_accuracy",
    "attributes": "average_precision",
    "alignment": "nme",
    "verification": "roc_auc",
}
TENTH = {
    "expression, balanced accuracy": "expression",
    "attributes, average precision": "attributes",
    "alignment, NME (less is better)": "alignment",
}
FOLDERS = {"frozen": PRIMARY, "tenth": TENTH.values(), "equal": PRIMARY}
"""Stored trainings, and their tasks."""
ROWS = {
    "expression, balanced accuracy": "expression",
    "attributes, average precision": "attributes",
    "NME of landmarks in": "alignment",
    "verification, ROC AUC": "verification",
}
"""Beginnings of rows of the pages on released weights and on BYOL."""


def metrics_of(folder: str, task: str) -> dict[str, dict[str, float]]:
    """The primary metric of a task by model or difference; of landmarks in per cent."""
    content = json.loads((DOCS / "evidence" / folder / task / "metrics.json").read_text())
    metric, scale = PRIMARY[task], 100 if task == "alignment" else 1
    return {
        model: {name: value * scale for name, value in found[metric].items()}
        for model, found in content.items()
        if model != "test"
    }


def stated(page: str, row: str) -> list[list[float]]:
    """The numbers in each cell of a row, whose label or its beginning is given."""
    lines = (DOCS / page).read_text().replace("−", "-").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {row} ")]
    return [[float(number) for number in re.findall(r"-?\d+\.\d+", cell)] for cell in line.split("|")[2:-1]]


def words_of(page: str) -> str:
    """The text of a page in one line."""
    return " ".join((DOCS / page).read_text().split())


@pytest.mark.parametrize("row", TENTH)
def test_a_page_states_what_few_labels_give(row: str) -> None:
    found = metrics_of("tenth", TENTH[row])
    rough, close = (0.051, 0.051) if TENTH[row] == "alignment" else (0.0051, 0.00051)
    ours, *others = stated("recipe-search.md", row)
    for number, wanted in zip(ours, ("mean", "std"), strict=False):  # not every row gives the deviation
        assert number == pytest.approx(found["pretrained"][wanted], abs=close)
    for name, cell in zip(("random", "image_level"), others, strict=True):
        difference = found[f"pretrained - {name}"]
        assert cell[0] == pytest.approx(found[name]["mean"], abs=close), name
        assert cell[1:] == pytest.approx([difference["low"], difference["high"]], abs=rough), name


@pytest.mark.parametrize("row", ROWS)
def test_a_page_compares_regions_and_byol(row: str) -> None:
    """Intervals of the differences, bold where they exclude 0."""
    task = ROWS[row]
    differences = [
        metrics_of(folder, task)[f"pretrained - {other}"]
        for folder, other in (("frozen", "image_level"), ("equal", "image_level"), ("equal", "equal_steps"))
    ]
    page = "compared-with-byol.md"
    cells = stated(page, row)
    for cell, found in zip(cells, differences, strict=True):
        assert cell == pytest.approx(
            [found["low"], found["high"]], abs=0.051 if task == "alignment" else 0.0051
        )
    (line,) = [line for line in (DOCS / page).read_text().splitlines() if line.startswith(f"| {row} ")]
    assert ["**" in cell for cell in line.split("|")[2:-1]] == [
        found["low"] > 0 or found["high"] < 0 for found in differences
    ]


def test_a_page_compares_longer_trainings_with_random_weights() -> None:
    """Differences exclude 0 in landmarks and verification only."""
    found = {task: metrics_of("frozen", task)["pretrained - random"] for task in PRIMARY}
    assert {task for task, one in found.items() if one["low"] > 0 or one["high"] < 0} == {
        "alignment",
        "verification",
    }


@pytest.mark.parametrize("row", ROWS)
def test_the_page_states_the_metrics_of_the_released_weights(row: str) -> None:
    task = ROWS[row]
    found = metrics_of("released", task)
    table = pd.read_csv(DOCS / "evidence/frozen" / task / "results.csv")
    first = table[(table["model"] == "pretrained") & (table["metric"] == PRIMARY[task]) & (table["seed"] < 3)]
    scale, close = (100, 0.051) if task in ("expression", "alignment") else (1, 0.00051)
    known = 1 if task == "alignment" else scale  # `metrics_of` gives landmarks in per cent
    ours, smaller, untrained, bounds = stated("released-weights.md", f"photographs: {row}")
    assert ours == pytest.approx([found["pretrained"]["mean"] * known], abs=close)
    assert smaller == pytest.approx([first["value"].mean() * scale], abs=close)
    assert untrained == pytest.approx([found["random"]["mean"] * known], abs=close)
    difference = found["pretrained - random"]
    assert bounds == pytest.approx([difference["low"] * known, difference["high"] * known], abs=close)


@pytest.mark.parametrize(
    ("row", "metric", "scale", "close"),
    [("NME of landmarks in", "nme", 100, 0.0051), ("yaw, error in", "yaw", 1, 0.051)],
)
def test_the_page_states_the_metrics_of_synthetic_faces(
    row: str, metric: str, scale: int, close: float
) -> None:
    table = pd.read_csv(DOCS / "evidence/ruler/results.csv")
    table = table[(table["metric"] == metric) & (table["labels"] == 400)].set_index("model")
    wanted = [[table.loc[model, "value"]] for model in ("demo", "demo-48", "random:0")]
    wanted.append([table.loc["demo - random:0", bound] for bound in ("low", "high")])
    for cell, values in zip(stated("released-weights.md", f"synthetic: {row}"), wanted, strict=True):
        assert cell == pytest.approx([value * scale for value in values], abs=close)


@pytest.mark.parametrize(
    "folder", [*FOLDERS, *(pytest.param(name, marks=pytest.mark.slow) for name in ("demo", "released"))]
)
def test_stored_metrics_follow_from_the_predictions(folder: str) -> None:
    tasks = set(FOLDERS.get(folder, PRIMARY))
    assert {path.name for path in (DOCS / "evidence" / folder).iterdir()} == tasks
    for task in tasks:
        assert differences(task, DOCS / "evidence" / folder / task) == []


def test_a_page_compares_masks_with_clusters() -> None:
    """Means of three seeds."""
    found = [json.loads((DOCS / f"evidence/regions-{seed}.json").read_text()) for seed in (0, 1, 2)]
    byol, masks, own, colours, grid = (
        f"{sum(seed[name]['nmi'] for seed in found) / len(found):.3f}"
        for name in (
            "features of data/baselines/image_level.safetensors",
            "pretrained",
            "features",
            "colours",
            "place",
        )
    )
    assert (
        f"NMI {byol} compared with {masks} (k-means of FRA's own features {own}, of pixel colours {colours}, "
        f"a fixed grid {grid}; means of three seeds)"
    ) in words_of("compared-with-byol.md")


def test_the_page_states_the_masks_of_the_released_weights() -> None:
    """In `make demo` they are what training started from."""
    found = json.loads((DOCS / "evidence/regions-demo.json").read_text())
    iou = found["start"]["iou"]
    text = words_of("released-weights.md")
    assert (
        f"(NMI {found['start']['nmi']:.3f}) than k-means of pixel colours ({found['colours']['nmi']:.3f}), a fixed "
        f"grid of cells ({found['place']['nmi']:.3f}) and an untrained network ({found['random']['nmi']:.3f})"
    ) in text
    assert (
        f"background {iou['background']:.2f}, skin {iou['skin']:.2f}, nose {iou['nose']:.2f}), not brows "
        f"({iou['brows']:.2f}), mouth ({iou['mouth']:.2f}) or eyes (below 0.001)"
    ) in text
    assert iou["eyes"] < 0.001


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
    heatmaps, colours, cells = (found[name]["nmi"] for name in ("pretrained", "colours", "place"))
    eyes, mouth = (found["pretrained"]["iou"][part] for part in ("eyes", "mouth"))
    assert eyes < 0.001
    text = " ".join(README.read_text(encoding="utf-8").split())
    assert f"not eyes or mouth** (IoU below 0.001 and {mouth:.2f})" in text
    assert f"{heatmaps / colours:.1f} times as well as k-means of pixel colours" in text
    assert f"(NMI {heatmaps:.3f} and {colours:.3f};" in text
    assert f"cells at fixed positions {cells:.3f}" in text


def test_the_readme_states_where_the_released_weights_are_better() -> None:
    """Without adaptation to the photographs: the intervals of the differences from random weights."""
    text = " ".join(README.read_text(encoding="utf-8").split())
    words = {
        ("attributes", "average_precision"): ("attributes", 1, 3),
        ("alignment", "nme"): ("landmarks", 100, 1),
        ("verification", "roc_auc"): ("verification", 1, 3),
    }
    for (task, metric), (word, scale, digits) in words.items():
        found = json.loads((DOCS / f"evidence/released/{task}/metrics.json").read_text())
        bounds = [found["pretrained - random"][metric][end] * scale for end in ("low", "high")]
        written = "…".join(f"{bound:+.{digits}f}" for bound in bounds).replace("-", "−")
        assert f"{word} ({written}" in text
    expression = json.loads((DOCS / "evidence/released/expression/metrics.json").read_text())
    row = expression["pretrained - random"]["balanced_accuracy"]
    assert row["low"] < 0 < row["high"]
