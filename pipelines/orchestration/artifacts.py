"""What a run shows in Prefect's interface: progress, results and their changes, validation, links, hashes.

None of it may stop a run: if the server is away, nothing is shown and the run goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any, TypeAlias

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from fra.validation.verdict import exclusions
from pipelines.orchestration import results, server
from pipelines.orchestration.results import Row
from pipelines.project import paths
from pipelines.repo import graph
from pipelines.repo.graph import Plan

Log: TypeAlias = Logger | LoggerAdapter[Any]

PROGRESS_INTERVAL = 5.0
"""Seconds between two updates of a progress artifact."""


@contextmanager
def tolerate_server_errors(log: Log, what: str) -> Iterator[None]:
    """Logs an error of the connection to the server as a warning, in place of raising it."""
    try:
        yield
    except httpx.HTTPError as error:
        log.warning("%s not shown: %s: %s", what, type(error).__name__, error)


@contextmanager
def progress_of(stage: str, log: Log) -> Iterator[Callable[[float], None]]:
    """A function that shows the progress of a stage in per cent; its first call creates the artifact."""
    shown: list[Any] = []
    last = 0.0

    def show(percent: float) -> None:
        nonlocal last
        if time.monotonic() - last < PROGRESS_INTERVAL:
            return
        last = time.monotonic()
        with tolerate_server_errors(log, "progress"):
            if shown:
                update_progress_artifact(shown[0], progress=percent)
            else:
                shown.append(
                    create_progress_artifact(
                        progress=percent, key=artifact_key(f"progress-{stage}"), description=stage
                    )
                )

    yield show
    if shown:
        with tolerate_server_errors(log, "progress"):
            update_progress_artifact(shown[0], progress=100.0)


def publish(plan: Plan, log: Log) -> None:
    """Creates the artifacts of the current flow run: results, metrics, hashes, validation, report."""
    table("results", results.headline(), ("task", "metric"), "Main metric of each task, frozen backbone", log)
    table("metrics", results.all_metrics(), ("stage", "model", "metric"), "All metrics", log)
    with tolerate_server_errors(log, "hashes"):
        if rows := outputs(plan):
            create_table_artifact(rows, key="made", description="Outputs of the stages, from dvc.lock")
    for verdict in sorted(paths.VALIDATION.glob("**/verdict.json")):
        name = "-".join(("verdict", *verdict.parent.relative_to(paths.VALIDATION).parts))
        with tolerate_server_errors(log, "validation result"):
            create_markdown_artifact(
                verdict_text(verdict), key=artifact_key(name), description="Validation result"
            )
        docs = verdict.parent / "data_docs" / "index.html"
        link(
            docs, name.replace("verdict", "data-docs", 1), "Data Docs: every expectation and its result", log
        )
    link(paths.REPORT / "index.html", "report", "The report of this run", log)


def table(key: str, rows: list[Row], identity: tuple[str, ...], description: str, log: Log) -> None:
    """Creates a table artifact with a column of the changes since the last run; nothing if there are no rows."""
    if not rows:
        return
    with tolerate_server_errors(log, key):
        changed = results.with_changes(rows, previous_table(key), identity)
        create_table_artifact(changed, key=key, description=f"{description}; change since the last run")


def previous_table(key: str) -> list[Row]:
    """Returns the rows of the newest table artifact of this key, from any run; [] if there is none."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
            sort=ArtifactSort.UPDATED_DESC,
            limit=1,
        )
    rows = json.loads(str(found[0].data)) if found else []
    return rows if isinstance(rows, list) else []


def artifact_key(name: str) -> str:
    """Returns a name in the form that Prefect requires: lower case, digits and dashes."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def link(page: Path, name: str, description: str, log: Log) -> None:
    """Creates a link to a page of artifacts/ as `make serve` serves it; the file's path if nothing serves it.

    A browser opens no file:// address from a page of the server, so there is no such link.
    """
    if not page.is_file():
        return
    url = page_url(page)
    with tolerate_server_errors(log, description):
        if url:
            create_link_artifact(url, link_text=description, key=artifact_key(name), description=description)
        else:
            text = f"{description}: open `{page}` in the project's folder (`make serve` would serve it)."
            create_markdown_artifact(text, key=artifact_key(name), description=description)


def page_url(page: Path) -> str | None:
    """Returns the address of a page of artifacts/ as `make serve` serves it; None if it does not run."""
    base = server.pages_address()
    return f"{base}/{page.relative_to('artifacts').as_posix()}" if base else None


def outputs(plan: Plan) -> list[Row]:
    """Returns one row for each output of the plan's stages: path, MD5 (its address in DVC's cache) and bytes."""
    return [
        {"stage": stage.name, "path": out.path, "md5": out.md5, "bytes": out.size}
        for stage in plan.stages
        for out in graph.outputs(stage.name)
    ]


def verdict_text(path: Path) -> str:
    """Returns a validation result as Markdown: passed or not, why, quarantined images, each expectation."""
    verdict = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"## {verdict['dataset']}: {'passed' if verdict['success'] else 'did not pass'}",
        f"{verdict['rows'] - verdict.get('without_face', 0):,} images, {exclusions(verdict)}.",
        *(f"- {reason}" for reason in verdict["reasons"]),
        "",
        "| expectation | severity | met | exceptions |",
        "|---|---|---|---|",
    ]
    for found in verdict["expectations"]:
        met = "yes" if found["success"] else "**no**"
        lines.append(f"| {found['name']} | {found['severity']} | {met} | {found['unexpected_count']} |")
    return "\n".join(lines)
