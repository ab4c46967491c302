"""What a run shows in Prefect's interface: progress, results and their change, verdict, links, hashes.

Nothing here may stop a run: where the server is away, there is nothing to see, and the work goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any, TypeAlias

import httpx
from prefect.artifacts import (
    Artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from pipelines.project import paths
from pipelines.repo import graph
from pipelines.repo.graph import Plan

Log: TypeAlias = Logger | LoggerAdapter[Any]
Row: TypeAlias = dict[str, Any]

EVERY = 5.0
"""Seconds between two updates of a progress artifact."""


@contextmanager
def forgiven(log: Log, what: str) -> Iterator[None]:
    """A server that is away costs an artifact, not the run."""
    try:
        yield
    except httpx.HTTPError as error:
        log.warning("%s not shown: %s: %s", what, type(error).__name__, error)


@contextmanager
def progress_of(stage: str, log: Log) -> Iterator[Callable[[float], None]]:
    """A function that shows how much of a stage is done, in per cent; the artifact is made at its first call."""
    shown: list[Any] = []
    last = 0.0

    def show(percent: float) -> None:
        nonlocal last
        if time.monotonic() - last < EVERY:
            return
        last = time.monotonic()
        with forgiven(log, "progress"):
            if shown:
                update_progress_artifact(shown[0], progress=percent)
            else:
                shown.append(
                    create_progress_artifact(
                        progress=percent, key=key(f"progress-{stage}"), description=stage
                    )
                )

    yield show
    if shown:
        with forgiven(log, "progress"):
            update_progress_artifact(shown[0], progress=100.0)


def publish(plan: Plan, log: Log) -> None:
    """Everything that the last run left, as artifacts of the present flow run."""
    with forgiven(log, "results"):
        if rows := results(read_metrics(), previous("results")):
            create_table_artifact(
                rows, key="results", description="Results, and their change since the last run"
            )
    with forgiven(log, "hashes"):
        if rows := made(plan):
            create_table_artifact(rows, key="made", description="What was made, as dvc.lock has it")
    for verdict in sorted(paths.VALIDATION.glob("**/verdict.json")):
        with forgiven(log, "verdict"):
            name = "-".join(("verdict", *verdict.parent.relative_to(paths.VALIDATION).parts))
            create_markdown_artifact(verdict_text(verdict), key=key(name), description="Verdict on the data")
        docs = verdict.parent / "data_docs" / "index.html"
        link(
            docs,
            key(name.replace("verdict", "data-docs", 1)),
            "Data Docs: every expectation and what it found",
            log,
        )
    link(paths.REPORT / "index.html", "report", "The report of this run", log)


def key(name: str) -> str:
    """As Prefect wants it: lower case, digits and dashes."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def link(page: Path, name: str, description: str, log: Log) -> None:
    """A link to a page, through the server of artifacts that `make serve` runs, or else the file itself."""
    if not page.is_file():
        return
    base = os.environ.get("FRA_ARTIFACTS_URL")
    url = f"{base}/{page.relative_to('artifacts').as_posix()}" if base else page.resolve().as_uri()
    with forgiven(log, description):
        create_link_artifact(url, link_text=description, key=name, description=description)


def read_metrics() -> dict[tuple[str, str, str], float]:
    """(stage, model, metric) → value, of pre-training and of every task that has been judged."""
    found: dict[tuple[str, str, str], float] = {}
    for path in [paths.PRETRAIN / "metrics.json", *sorted(paths.TRANSFER.glob("*/metrics.json"))]:
        if path.is_file():
            for name, value in json.loads(path.read_text(encoding="utf-8")).items():
                if isinstance(value, dict):
                    for metric, figure in value.items():
                        if isinstance(figure, dict) and isinstance(figure.get("mean"), int | float):
                            found[path.parent.name, name, metric] = float(figure["mean"])
                elif isinstance(value, int | float) and not isinstance(value, bool):
                    found[path.parent.name, "", name] = float(value)
    return found


def results(metrics: dict[tuple[str, str, str], float], before: list[Row]) -> list[Row]:
    """One row a figure, beside its change since `before`, the table of the last run ("new" where it had none)."""
    old = {(row["stage"], row["model"], row["metric"]): row["value"] for row in before}
    return [
        {
            "stage": stage,
            "model": model,
            "metric": metric,
            "value": round(value, 6),
            "change": round(value - old[stage, model, metric], 6) if (stage, model, metric) in old else "new",
        }
        for (stage, model, metric), value in metrics.items()
    ]


def previous(name: str) -> list[Row]:
    """The newest table artifact of this name, by whichever run; [] where there is none."""
    found = Artifact.get(name)
    rows = json.loads(str(found.data)) if found is not None else []
    return rows if isinstance(rows, list) else []


def made(plan: Plan) -> list[Row]:
    """Every output of the plan's stages with its hash (MD5, DVC's address of the content) and size."""
    return [
        {"stage": stage.name, "path": out["path"], "md5": out.get("md5", ""), "bytes": out.get("size", 0)}
        for stage in plan.stages
        for out in graph.outputs(stage.name)
    ]


def verdict_text(path: Path) -> str:
    """A verdict in a few lines: passed or not, why, how many images were quarantined."""
    verdict = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"## {verdict['dataset']}: {'passed' if verdict['success'] else 'did not pass'}",
        f"{verdict['rows']:,} images, {verdict['quarantined']:,} quarantined.",
        *(f"- {reason}" for reason in verdict["reasons"]),
        "",
        "| expectation | severity | met | exceptions |",
        "|---|---|---|---|",
    ]
    for found in verdict["expectations"]:
        met = "yes" if found["success"] else "**no**"
        lines.append(f"| {found['name']} | {found['severity']} | {met} | {found['unexpected_count']} |")
    return "\n".join(lines)
