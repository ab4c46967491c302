"""Stored figures computed anew from stored predictions: is every number what the predictions give?"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import read_parquet
from fra.transfer.results import files
from fra.transfer.tasks import TASKS

TOLERANCE = 1e-9
"""Relative difference that another processor's summation may make."""


def differences(task: str, folder: Path) -> list[str]:
    """What is stored in a task's folder and is not what its `predictions.parquet` give; empty where all agrees.

    Raises:
        FileNotFoundError: the folder holds no predictions.
        ValueError: there is no such task.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; there are: {', '.join(TASKS)}")
    path = folder / "predictions.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such predictions; run `dvc repro transfer@{task}` first")
    found: list[str] = []
    for name, content in files(task, read_parquet(path)).items():
        stored = folder / name
        if not stored.is_file():
            found.append(f"{stored}: missing")
            continue
        text = stored.read_text(encoding="utf-8")
        try:
            was, now = flat(name, text), flat(name, content)
        except ValueError as error:
            found.append(f"{stored}: cannot be read ({error})")
            continue
        found += [f"{stored}: {difference}" for difference in compare(was, now)]
    return found


def compare(stored: Mapping[str, Any], recomputed: Mapping[str, Any]) -> Iterator[str]:
    """Each figure that differs, is missing or was never computed, by its name."""
    for name, value in recomputed.items():
        if name not in stored:
            yield f"{name}: missing, recomputed {value}"
        elif not same(stored[name], value):
            yield f"{name}: stored {stored[name]}, recomputed {value}"
    for name in stored:
        if name not in recomputed:
            yield f"{name}: stored, but nothing gives it"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12) or (one != one and other != other)
    return bool(one == other)


def flat(name: str, text: str) -> dict[str, Any]:
    """The figures of a file by name: of JSON the path to each, of a table its first columns and the column.

    Raises:
        ValueError: the text is not of this format.
    """
    if name.endswith(".json"):
        return dict(_leaves(json.loads(text)))
    table = pd.read_csv(io.StringIO(text), keep_default_na=False)
    keys = (
        [column for column in table if column not in ("value", "low", "high")]
        if "value" in table
        else [table.columns[0]]
    )
    return {
        f"{' '.join(str(row[key]) for key in keys)} {column}": number(row[column])
        for row in table.to_dict("records")
        for column in table.columns
        if column not in keys
    }


def number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _leaves(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, f"{above}.{key}" if above else str(key))
    else:
        yield above, float(value) if isinstance(value, int | float) else value
