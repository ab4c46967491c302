"""Artifacts of a run, read from disk and checked once; the page shows nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import read_csv, read_parquet
from fra.transfer.config import MINUS
from fra.transfer.results import TYPES
from fra.validation import verdict
from fra.validation.verdict import ValidationResult

SUMMARY_KEYS = {"test"}
"""Keys of a task's metrics.json that do not name a model."""


@dataclass(frozen=True)
class TaskResult:
    """Artifacts of the transfer stage for one task; `results` (results.csv) is None if the file is missing."""

    name: str
    metrics: dict[str, Any]
    results: pd.DataFrame | None
    folder: Path
    trained: str = "FRA"
    """Display name of the pre-trained model (see `trained_label`)."""

    def predictions(self) -> pd.DataFrame | None:
        """Read predictions.parquet: a row for each test image (or pair) and output (see `tasks.prediction_metrics`).

        It can be large, so each call reads it from disk.

        Returns:
            The predictions, or None if the file is missing.
        """
        path = self.folder / "predictions.parquet"
        return read_parquet(path) if path.is_file() else None

    @property
    def seeds(self) -> int | None:
        """Number of seeds that the metrics are averaged over; None if it is unknown."""
        return None if self.results is None else int(self.results["seed"].nunique())

    @property
    def models(self) -> list[str]:
        """Names of the evaluated models: the reference model of the differences first, the others by name."""
        entries = [name for name in self.metrics if name not in SUMMARY_KEYS]
        reference = {name.split(MINUS)[0] for name in entries if MINUS in name}
        models = [name for name in entries if MINUS not in name]
        return sorted(models, key=lambda name: (name not in reference, name != "pretrained", name))


@dataclass(frozen=True)
class Run:
    """Artifacts of one run; optional ones are None if missing, and the page then leaves their part out.

    `manifest` has the usable rows of the labelled set. `files` are all files that the stages wrote, for links.
    """

    verdict: ValidationResult
    quarantine: pd.DataFrame | None
    data_docs: Path | None
    metrics: dict[str, Any]
    history: pd.DataFrame
    weights: Path | None
    tasks: list[TaskResult]
    manifest_path: Path
    manifest: pd.DataFrame
    shards: Path | None
    provenance: dict[str, Any]
    files: list[Path]


def read(
    *,
    validation: Path,
    pretrain: Path,
    transfer: dict[str, Path],
    manifest: Path,
    quarantined: Path,
    shards: Path,
    provenance: dict[str, Any],
) -> Run:
    """Read the artifacts of a run.

    Args:
        validation: Folder of the validation stage.
        pretrain: Folder of the pre-training stage.
        transfer: Folder of the transfer stage, by task.
        manifest: Manifest of the labelled set.
        quarantined: Quarantine list of the labelled set.
        shards: Folder with the shards of the labelled set.
        provenance: Inputs of the run: code, parameters, environment.

    Raises:
        FileNotFoundError: The manifest, a metrics.json, or history.csv of pre-training is missing.
        ValidationFailed: The validation result is missing or was edited, or the labelled set has no quarantine list.
        ValueError: A file is damaged.
    """
    quarantine, weights = validation / "quarantine.csv", pretrain / "model.safetensors"
    docs = validation / "data_docs" / "index.html"
    trained = trained_label(provenance.get("params", {}))
    return Run(
        verdict=verdict.read(validation / "verdict.json"),
        quarantine=verdict.read_quarantine(quarantine) if quarantine.is_file() else None,
        data_docs=docs if docs.is_file() else None,
        metrics=_json(pretrain / "metrics.json", "pretrain"),
        history=_table(pretrain / "history.csv", "pretrain", {"step": "int64", "epoch": "int64"}, "float64"),
        weights=weights if weights.is_file() else None,
        tasks=[_task(name, folder, trained) for name, folder in transfer.items()],
        manifest_path=manifest,
        manifest=verdict.usable_rows(_manifest(manifest), verdict.read_quarantined_keys(quarantined)),
        shards=shards if shards.is_dir() else None,
        provenance=provenance,
        files=[
            path
            for folder in (pretrain, *transfer.values(), validation)
            for path in sorted(folder.glob("*.*"))
        ],
    )


def started_from(provenance: Mapping[str, Any]) -> str | None:
    """Return the weights that pre-training started from (`train.init`); None if they were random or are unknown."""
    init: str | None = provenance.get("params", {}).get("train", {}).get("init")
    return init


def trained_label(params: Mapping[str, Any]) -> str:
    """Return the display name of the pre-trained model of a run with these parameters (unknown ones: FRA)."""
    if params.get("train", {}).get("init") is not None:
        return "Adapted"
    objective = params.get("objective", {"region_weight": 1})
    return "FRA" if objective["region_weight"] or objective.get("relation_weight") else "Image level"


def _task(name: str, folder: Path, trained: str) -> TaskResult:
    stage = f"transfer@{name}"
    results = folder / "results.csv"
    return TaskResult(
        name=name,
        metrics=_json(folder / "metrics.json", stage),
        results=_results(results, stage) if results.is_file() else None,
        folder=folder,
        trained=trained,
    )


def _json(path: Path, stage: str) -> dict[str, Any]:
    _require(path, stage)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); run the stage {stage} again") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: contains a {type(content).__name__}, not an object; run the stage {stage} again"
        )
    return content


def _results(path: Path, stage: str) -> pd.DataFrame:
    """Read results.csv; the group of metrics over all images is null."""
    table = _table(path, stage, TYPES)
    return table.assign(group=table["group"].where(table["group"] != ""))


def _table(path: Path, stage: str, types: Mapping[str, str], others: str | None = None) -> pd.DataFrame:
    _require(path, stage)
    try:
        return read_csv(path, types, others)
    except ValueError as error:
        raise ValueError(f"{path}: not a readable table ({error}); run the stage {stage} again") from None


def _manifest(path: Path) -> pd.DataFrame:
    _require(path, "shard")
    return read_parquet(path)


def _require(path: Path, stage: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, and the report requires it; run the stage {stage} first")
