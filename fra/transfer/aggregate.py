"""Aggregation of several pre-training runs, so that means and intervals are over their seeds too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import read_parquet
from fra.transfer.config import PRETRAINED
from fra.transfer.results import write


def aggregate(folders: Sequence[Path], out: Path) -> dict[str, dict[str, Any]]:
    """Compute the metrics of several pre-training runs together, by task.

    Seeds are renumbered: those of the first run keep their numbers, those of the second run follow, and so on.

    Args:
        folders: `artifacts/transfer` of each run, with the same tasks, test images, models and seeds.
        out: Folder for the same files as `fra.transfer.evaluate` writes, in one folder per task.

    Returns:
        The content of `metrics.json` by task.

    Raises:
        FileNotFoundError: The first folder holds no predictions.
        ValueError: There are fewer than two folders, or their tasks, test images, models, protocols or seeds differ; or
            two of them are of the same pre-training run, whose seeds would count twice.
    """
    if len(folders) < 2:
        raise ValueError("aggregation needs the artifacts/transfer of at least two pre-training runs")
    tasks = sorted(path.parent.name for path in folders[0].glob("*/predictions.parquet"))
    if not tasks:
        raise FileNotFoundError(f"{folders[0]}: no predictions of any task; run `dvc repro transfer` first")
    joined = {task: _join(task, folders) for task in tasks}  # read all before any is written
    return {task: write(task, predictions, out / task) for task, predictions in joined.items()}


def _join(task: str, folders: Sequence[Path]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    for folder in folders:
        path = folder / task / "predictions.parquet"
        if not path.is_file():
            raise ValueError(f"{path}: missing, but {folders[0]} has this task")
        part = read_parquet(path)
        for column in ("model", "protocol", "fraction", "seed"):
            if parts and set(part[column]) != set(parts[0][column]):
                raise ValueError(
                    f"{path}: {column} {_listed(part[column])}, but {_listed(parts[0][column])} in {folders[0]}: "
                    "evaluate all pre-training runs in the same way (including the names in transfer.baselines)"
                )
        if parts and set(part["key"]) != set(parts[0]["key"]):
            raise ValueError(f"{path}: its test images differ from those of {folders[0]}")
        for other, seen in zip(folders, parts, strict=False):
            if _of_pretrained(part).equals(_of_pretrained(seen)):
                raise ValueError(
                    f"{path}: the same predictions as in {other}: give different pre-training runs"
                )
        parts.append(part)
    seeds = parts[0]["seed"].max() + 1
    return pd.concat(
        [part.assign(seed=part["seed"] + seeds * number) for number, part in enumerate(parts)],
        ignore_index=True,
    )


def _of_pretrained(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["model"] == PRETRAINED].reset_index(drop=True)


def _listed(values: pd.Series) -> str:
    return ", ".join(str(value) for value in sorted(values.unique()))
