"""Several pre-trainings judged as one, so that a figure's mean and interval are over their seeds too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import read_parquet
from fra.transfer.results import write
from fra.transfer.tasks import TASKS


def pool(folders: Sequence[Path], out: Path) -> dict[str, dict[str, Any]]:
    """Figures of all pre-trainings together, by task.

    Each of `folders` is `artifacts/transfer` of one pre-training, with the same tasks, test people, models and
    seeds. Writes to `out`/<task> what `fra.transfer.evaluate` writes, whose seeds are then counted through:
    pre-training 0 with its seeds, pre-training 1 with its seeds … Returns the summary of each task.

    Raises:
        FileNotFoundError: a folder holds no predictions of any task.
        ValueError: fewer than two folders, or they do not hold the same tasks, models and questions.
    """
    if len(folders) < 2:
        raise ValueError("pooling takes the artifacts/transfer of at least two pre-trainings")
    tasks = [task for task in TASKS if (folders[0] / task / "predictions.parquet").is_file()]
    if not tasks:
        raise FileNotFoundError(f"{folders[0]}: no task's predictions in it; run `dvc repro transfer` first")
    joined = {task: _join(task, folders) for task in tasks}  # all, before any is written
    return {task: write(task, predictions, out / task) for task, predictions in joined.items()}


def _join(task: str, folders: Sequence[Path]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    for folder in folders:
        path = folder / task / "predictions.parquet"
        if not path.is_file():
            raise ValueError(f"{path}: missing, though {folders[0]} has this task")
        part = read_parquet(path)
        for what in ("model", "protocol", "fraction", "seed"):
            if parts and set(part[what]) != set(parts[0][what]):
                raise ValueError(
                    f"{path}: {what} {_told(part[what])}, but {_told(parts[0][what])} in {folders[0]}: "
                    "evaluate all pre-trainings in the same way (names of transfer.baselines too)"
                )
        if parts and set(part["key"]) != set(parts[0]["key"]):
            raise ValueError(f"{path}: asks other images than {folders[0]} does")
        parts.append(part)
    seeds = parts[0]["seed"].max() + 1
    return pd.concat(
        [part.assign(seed=part["seed"] + seeds * number) for number, part in enumerate(parts)],
        ignore_index=True,
    )


def _told(values: pd.Series) -> str:
    return ", ".join(str(value) for value in sorted(values.unique()))
