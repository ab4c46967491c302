from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fra.report.artifacts import TaskResult
from fra.report.elements import Missing
from fra.report.page import write
from fra.report.sections.tasks import group_tables, matching_label
from fra.validation import verdict
from fra.validation.verdict import ValidationFailed
from pipelines import report as stage

from .conftest import MARKUP_IN_NAME

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Outline(HTMLParser):
    """Tags, addresses, ids and text of a page; fails if tags are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def outline(report: Path) -> Outline:
    return Outline(report.read_text(encoding="utf-8"))


@pytest.fixture
def run(artifacts: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A copy of the run, for tests that change files."""
    root = artifacts["validation"].parent
    shutil.copytree(root, tmp_path / "run", ignore=shutil.ignore_patterns("report"))

    def moved(path: Path) -> Path:
        return tmp_path / "run" / path.relative_to(root)

    return {name: moved(value) if isinstance(value, Path) else value for name, value in artifacts.items()} | {
        "transfer": {task: moved(folder) for task, folder in artifacts["transfer"].items()}
    }


def page_of(run: dict[str, Any]) -> Outline:
    return Outline(write(run["validation"].parent / "out" / "index.html", **run).read_text(encoding="utf-8"))


def test_page_is_one_small_file_that_loads_nothing_else(report: Path, outline: Outline) -> None:
    assert report.stat().st_size < 1_500_000
    assert list(report.parent.iterdir()) == [report]
    inside = ("data:", "#", "http://127.0.0.1:")  # the last one is the link to the atlas, followed on request
    links = [address for address in outline.addresses if not address.startswith(inside)]
    assert links
    for address in links:
        assert (report.parent / address).is_file()
    assert "@import" not in report.read_text(encoding="utf-8")


def test_page_is_well_formed(outline: Outline) -> None:
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.tags.count("h1") == outline.tags.count("main") == 1


def test_same_artifacts_give_the_same_bytes(report: Path, artifacts: dict[str, Any]) -> None:
    second = write(report.with_name("second.html"), **artifacts)
    try:
        assert second.read_bytes() == report.read_bytes()
    finally:
        second.unlink()


def test_page_has_the_values_of_metrics_json(outline: Outline, artifacts: dict[str, Any]) -> None:
    metrics = json.loads((artifacts["transfer"]["verification"] / "metrics.json").read_text())
    for model in ("pretrained", "random"):
        assert f"{metrics[model]['roc_auc']['mean']:.3f}" in outline.text
    difference = metrics["pretrained - random"]["roc_auc"]
    written = f"({difference['low']:+.3f} to {difference['high']:+.3f})".replace("-", "−")
    assert written in outline.text


def test_small_sets_are_labelled(outline: Outline) -> None:
    assert "Small data. These metrics rest on 36 photographs of 12 people" in outline.text


def test_adapted_weights_and_region_quality_are_named(run: dict[str, Any]) -> None:
    run["provenance"]["params"]["train"] = {"init": "demo"}
    text = page_of(run).text
    assert "Adapted: a backbone that started from demo and was trained further without labels." in text
    assert "Adapted compared with random weights: better on average in" in text
    assert "heatmaps of this run 0.250 0.500 0.625 fixed cells, the same on every face 0.250" in text


def test_why_region_quality_is_not_measured_is_on_the_page(run: dict[str, Any]) -> None:
    text = page_of(run | {"region_quality": Missing("no test image has landmarks")}).text
    assert "facial parts is not measured: no test image has landmarks" in text
    assert "heatmaps of this run" not in text


def test_a_damaged_labelled_set_stops_the_stage(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to leave out the region quality."""
    root = run["validation"].parent
    monkeypatch.chdir(root)
    (root / "artifacts").symlink_to(root)
    (root / "data/manifest").mkdir(parents=True)
    (root / "data/shards").mkdir()
    (root / "data/shards/toy").symlink_to(run["shards"])
    (root / "params.yaml").write_text("tasks: {alignment: {dataset: toy, validation: .}}\n")
    manifest = pd.read_parquet(run["manifest"])
    manifest.loc[manifest["person"] == "p07", "person"] = "p00"
    manifest.to_parquet(root / "data/manifest/toy.parquet")
    with pytest.raises(ValueError, match="person 'p00' is in 2 splits"):
        stage.report()


def test_all_sections_have_their_content(outline: Outline) -> None:
    for text in (
        "Cumulative error",
        "Worst 1: ",
        "The label is Smiling.",
        "ROC of verification",
        "Each attribute",
        "Expression, linear",  # over fractions of labels
        "Attributes: Average precision by group",
        "Legend: position of each mask",
        "Share of each mask by label, in % of all pixels, on 18 faces",
        "Nearest to the average",
        "fra atlas",
        "0123456789abcdef",
        "views.crop_scale",
    ):
        assert text in outline.text, text


def test_groups_without_the_headline_metric_show_another(tmp_path: Path) -> None:
    """Where each group lacks a class, average precision is defined in no group."""
    columns = ["protocol", "fraction", "seed", "model", "group", "metric", "value", "low", "high"]
    rows = [
        ("linear", 1.0, None, model, group, metric, value, None, None)
        for model, value in (("pretrained", 0.75), ("random", 0.5))
        for group, metric in (
            (None, "average_precision"),
            (None, "accuracy"),
            ("indoors=0", "accuracy"),
            ("indoors=1", "accuracy"),
        )
    ]
    metrics = {model: {"average_precision": {"mean": 0.7, "std": 0.0}} for model in ("pretrained", "random")}
    task = TaskResult("attributes", metrics, pd.DataFrame(rows, columns=columns), tmp_path)
    (table,) = group_tables(task)
    assert table.caption == "Attributes: Accuracy by group"
    assert [row[0] for row in table.rows] == ["indoors=0", "indoors=1"]


def test_quarantined_images_are_listed_with_escaped_names(report: Path, outline: Outline) -> None:
    assert MARKUP_IN_NAME in outline.text
    assert "the file is empty (0 bytes)" in outline.text
    assert "<script>alert" not in report.read_text(encoding="utf-8")


def test_quarantined_images_of_the_labelled_set_are_not_shown(run: dict[str, Any], report: Path) -> None:
    manifest = pd.read_parquet(run["manifest"])
    rows = manifest[manifest["split"] == "test"].iloc[[0, 3]]
    keys = rows["key"].to_list()
    before = report.read_text(encoding="utf-8")
    assert all(f"Held-out face {key}" in before for key in keys)
    verdict.write_quarantine(rows.assign(reason="the line through the eyes is rotated"), run["quarantined"])
    predictions = run["transfer"]["alignment"] / "predictions.parquet"
    table = pd.read_parquet(predictions)
    table[~table["key"].isin(keys)].to_parquet(predictions)
    after = write(run["validation"].parent / "out" / "index.html", **run).read_text(encoding="utf-8")
    assert not any(key in after for key in keys)


def test_a_labelled_set_without_quarantine_list_is_refused(run: dict[str, Any]) -> None:
    run["quarantined"].unlink()
    with pytest.raises(ValidationFailed, match=r"quarantine\.csv: missing"):
        page_of(run)


OPTIONAL = {
    "validation/quarantine.csv": "the list of quarantined images (quarantine.csv) is missing",
    "pretrain/model.safetensors": "The weights of the whole model (model.safetensors) are missing.",
    "transfer/attributes/results.csv": "The metrics of single attributes (results.csv) are missing.",
    "transfer/expression/predictions.parquet": "The predictions of this task (predictions.parquet) are missing.",
    "transfer/alignment/predictions.parquet": "The predictions of this task (predictions.parquet) are missing.",
    "transfer/verification/predictions.parquet": "The predictions of this task (predictions.parquet) are missing.",
}


def test_missing_optional_artifacts_are_named_in_their_sections(
    run: dict[str, Any], outline: Outline
) -> None:
    for file in ("validation/data_docs/index.html", *OPTIONAL):
        (run["validation"].parent / file).unlink()
    text = page_of(run).text
    for message in set(OPTIONAL.values()):
        assert text.count(message) == list(OPTIONAL.values()).count(message)
        assert message not in outline.text
    assert "Data Docs" not in text
    assert "Data Docs" in outline.text


def test_page_without_shards_has_no_photographs(run: dict[str, Any]) -> None:
    shutil.rmtree(run["shards"])
    page = page_of(run)
    assert page.text.count("The shards, which contain the photographs, are missing.") == 2
    assert "img" not in page.tags


def test_tasks_that_were_not_run_are_named(run: dict[str, Any]) -> None:
    run["transfer"] = {"verification": run["transfer"]["verification"]}
    shutil.rmtree(run["shards"])
    assert page_of(run).text.count("This task was not run.") == 3


def test_without_view_parameters_whole_faces_are_shown(run: dict[str, Any]) -> None:
    run["provenance"] = {}
    text = page_of(run).text
    assert "Not shown: the views" in text
    assert "Legend: position of each mask" in text


REQUIRED = {
    "pretrain/metrics.json": "pretrain",
    "pretrain/history.csv": "pretrain",
    "toy.parquet": "shard",
    "transfer/alignment/metrics.json": "transfer@alignment",
}


@pytest.mark.parametrize(("file", "stage"), REQUIRED.items())
def test_a_missing_required_artifact_is_one_error_with_its_remedy(
    run: dict[str, Any], file: str, stage: str
) -> None:
    path = run["validation"].parent / file
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(str(path))}: .*run the stage {stage} first$"):
        page_of(run)


def test_missing_validation_result_is_an_error(run: dict[str, Any]) -> None:
    (run["validation"] / "verdict.json").unlink()
    with pytest.raises(ValidationFailed, match="were not validated"):
        page_of(run)


@pytest.mark.parametrize("file", ["pretrain/metrics.json", "transfer/expression/metrics.json", "toy.parquet"])
def test_a_damaged_artifact_is_one_error(run: dict[str, Any], file: str) -> None:
    path = run["validation"].parent / file
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        page_of(run)


def test_a_failed_report_keeps_the_earlier_page(run: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "index.html"
    out.write_text("earlier", encoding="utf-8")
    (run["pretrain"] / "history.csv").unlink()
    with pytest.raises(FileNotFoundError):
        write(out, **run)
    assert out.read_text(encoding="utf-8") == "earlier"


def test_label_is_found_by_its_values() -> None:
    manifest = pd.DataFrame({"key": ["a", "b", "c"], "label.X": [0, 1, 1], "label.Y_Z": [1, 0, 1]})
    rows = pd.DataFrame({"key": ["a", "b", "c"], "output": ["1", "0", "1"], "truth": [1.0, 1.0, 1.0]})
    assert matching_label(rows, manifest) == "Y Z"
    assert matching_label(rows, manifest.assign(**{"label.W": [1, 0, 1]})) is None
    assert matching_label(rows, manifest.drop(columns="label.Y_Z")) is None
