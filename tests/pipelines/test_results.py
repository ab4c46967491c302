"""The tables of results in Prefect's interface."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.serving import receiver

from pipelines.orchestration import artifacts, results, server


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the results of one task and of pre-training."""
    monkeypatch.chdir(tmp_path)
    task = {
        "pretrained": {"nme": {"mean": 0.11, "std": 0.01}, "auc": {"mean": 0.4, "std": 0.0}},
        "random": {"nme": {"mean": 0.12, "std": 0.02}, "auc": {"mean": 0.3, "std": 0.0}},
        "pretrained - random": {"nme": {"mean": -0.01, "low": -0.03, "high": 0.02}},
        "test": {"images": 33},
    }
    files = {
        "artifacts/results.json": {"alignment": {"nme": 0.11, "random": 0.12}, "pretrain": {"total": 3.2}},
        "artifacts/transfer/alignment/metrics.json": task,
        "artifacts/pretrain/metrics.json": {"step": 90, "epoch": 2, "total": 3.2},
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path


def test_headline_has_one_row_per_task(finished: Path) -> None:
    assert results.headline() == [
        {
            "task": "alignment",
            "metric": "nme",
            "value": 0.11,
            "± over seeds": 0.01,
            "random weights": 0.12,
            "difference": -0.01,
            "95 % interval": "-0.0300 … +0.0200",
        }
    ]


def test_metrics_of_tasks_come_before_those_of_pretraining(finished: Path) -> None:
    stages = [row["stage"] for row in results.all_metrics()]
    assert stages == ["alignment"] * 6 + ["pretrain"] * 3


def test_change_is_the_difference_to_the_last_run(finished: Path) -> None:
    rows = results.headline()
    (first,) = results.with_changes(rows, [], ("task", "metric"))
    assert list(first)[:4] == ["task", "metric", "value", "change"]
    assert first["change"] == "new"
    (second,) = results.with_changes(rows, [first | {"value": 0.1}], ("task", "metric"))
    assert second["change"] == 0.01


def test_without_results_there_are_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert results.headline() == []
    assert results.all_metrics() == []


def test_links_lead_to_the_served_pages(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRA_ARTIFACTS_URL", raising=False)
    assert artifacts.page_url(Path("artifacts/report/index.html")) is None
    server.PAGES.parent.mkdir()
    server.PAGES.write_text("http://127.0.0.1:4201\n")
    with receiver() as (address, _):
        server.ADDRESS.write_text(f"{address}\n")
        url = artifacts.page_url(Path("artifacts/report/index.html"))
    assert url == "http://127.0.0.1:4201/report/index.html"
    assert artifacts.page_url(Path("artifacts/report/index.html")) is None  # as after kill -9 of `make serve`
