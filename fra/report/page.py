"""Writes the report: one HTML file that contains its styles, script, charts and pictures.

The page is a function of the artifacts alone: the same artifacts give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from fra.files import write_text
from fra.report import artifacts, headline
from fra.report.artifacts import Run, started_from, trained_label
from fra.report.elements import Missing, attempt, per_task
from fra.report.sections.data import label_table, provenance_tables, small_set, split_table, subtitle
from fra.report.sections.tasks import (
    attribute_chart,
    confusions,
    error_curve,
    few_labels,
    group_tables,
    landmarks,
    roc,
)
from fra.report.sections.training import (
    compared_faces,
    region_table,
    regions,
    training_charts,
    training_facts,
)
from fra.validation.verdict import exclusions


def write(
    out: Path,
    *,
    validation: Path,
    pretrain: Path,
    transfer: dict[str, Path],
    manifest: Path,
    quarantined: Path,
    shards: Path,
    provenance: dict[str, Any],
    region_quality: Mapping[str, Any] | Missing,
) -> Path:
    """Write the report page of a run.

    Optional artifacts are quarantine.csv, data_docs, model.safetensors, results.csv, predictions.parquet and the
    shards; if one is missing, the page gives the reason instead of the part that needs it.

    Args:
        out: The HTML file.
        validation: Folder of the validation stage.
        pretrain: Folder of the pre-training stage.
        transfer: Folder of the transfer stage, by task.
        manifest: Manifest of the labelled set.
        quarantined: Quarantine list of the labelled set.
        shards: Folder with the shards of the labelled set.
        provenance: Inputs of the run, as scalars and nested mappings; `params.views` are the parameters of the views
            that the page draws, if recorded.
        region_quality: Metrics by row, as `fra.region_quality.evaluate.evaluate` returns them, or why there are none.

    Returns:
        The path `out`.

    Raises:
        FileNotFoundError: A required artifact is missing.
        ValidationFailed: The validation result or the quarantine list of the labelled set is missing or was edited.
        ValueError: A file is damaged.
    """
    run = artifacts.read(
        validation=validation,
        pretrain=pretrain,
        transfer=transfer,
        manifest=manifest,
        quarantined=quarantined,
        shards=shards,
        provenance=provenance,
    )
    environment = Environment(
        loader=PackageLoader("fra.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(context(run, out, region_quality))
    write_text(page, out)
    return out


def context(run: Run, out: Path, region_quality: Mapping[str, Any] | Missing) -> dict[str, Any]:
    """Return the variables of the template, by section; a part that cannot be made is a `Missing`."""
    tables = [headline.table(task) for task in run.tasks]
    tasks = {task.name: task for task in run.tasks}
    return {
        "dataset": run.manifest_path.stem,
        "subtitle": subtitle(run),
        "small": small_set(run.manifest),
        "further_sets": headline.further_sets([task.name for task in run.tasks]),
        "tables": tables,
        "model_label": lambda name: headline.model_label(
            name, trained_label(run.provenance.get("params", {}))
        ),
        "started_from": started_from(run.provenance),
        "comparisons": headline.comparisons(tables),
        "conclusions": headline.CONCLUSIONS,
        "training": training_charts(run.history, run.metrics.get("measured_split") or "val"),
        "training_facts": training_facts(run.metrics),
        "regions": attempt(lambda: regions(run)),
        "features": attempt(lambda: compared_faces(run)),
        "region_quality": (
            region_quality if isinstance(region_quality, Missing) else region_table(region_quality)
        ),
        "errors": per_task(tasks.get("alignment"), error_curve),
        "landmarks": per_task(tasks.get("alignment"), lambda task: landmarks(task, run)),
        "confusions": per_task(tasks.get("expression"), lambda task: confusions(task, run.manifest)),
        "roc": per_task(tasks.get("verification"), roc),
        "attributes": per_task(tasks.get("attributes"), attribute_chart),
        "few_labels": [chart for task in run.tasks for chart in few_labels(task)],
        "groups": [table for task in run.tasks for table in group_tables(task)],
        "splits": split_table(run.manifest),
        "labels": label_table(run.manifest),
        "verdict": run.verdict,
        "exclusions": exclusions(vars(run.verdict)),
        "quarantine": run.quarantine,
        "data_docs": None if run.data_docs is None else link(run.data_docs, out),
        "files": [(path.name, path.parent.name, link(path, out)) for path in run.files],
        "provenance": list(provenance_tables(run)),
        "is_missing": lambda part: isinstance(part, Missing),
    }


def link(target: Path, page: Path) -> str:
    """Return the URL of a file relative to the page, percent-encoded."""
    return quote(Path(os.path.relpath(target, page.parent)).as_posix())
