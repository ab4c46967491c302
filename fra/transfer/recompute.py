"""Comparison of stored metrics with those computed again from the stored predictions."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fra.files import read_csv, read_parquet
from fra.transfer.results import derived_files
from fra.transfer.tasks.table import task_of

TOLERANCE = 1e-9
"""Relative difference that another processor's order of summation may cause."""


def differences(task: str, folder: Path) -> list[str]:
    """Return the stored values in a task's folder that do not follow from its `predictions.parquet`.

    Returns:
        One line per difference; empty where everything agrees.

    Raises:
        FileNotFoundError: The folder holds no predictions.
        ValueError: The task is unknown.
    """
    task_of(task)
    path = folder / "predictions.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such predictions; run `dvc repro transfer@{task}` first")
    found: list[str] = []
    for name, content in derived_files(task, read_parquet(path)).items():
        file = folder / name
        if not file.is_file():
            found.append(f"{file}: missing")
            continue
        text = file.read_text(encoding="utf-8")
        try:
            stored, recomputed = values_by_name(name, text), values_by_name(name, content)
        except ValueError as error:
            found.append(f"{file}: cannot be read ({error})")
            continue
        found += [f"{file}: {difference}" for difference in compare(stored, recomputed)]
    return found


def compare(stored: Mapping[str, Any], recomputed: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each value that differs, is missing, or does not follow from the predictions."""
    for name, value in recomputed.items():
        if name not in stored:
            yield f"{name}: missing, recomputed {value}"
        elif not equal(stored[name], value):
            yield f"{name}: stored {stored[name]}, recomputed {value}"
    for name in stored:
        if name not in recomputed:
            yield f"{name}: stored, but does not follow from the predictions"


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal; numbers within `TOLERANCE`, NaN equals NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12) or (one != one and other != other)
    return bool(one == other)


def values_by_name(file: str, text: str) -> dict[str, Any]:
    """Return the values of a JSON or CSV file by name.

    A name is the path to the value in JSON; in a table it is the row's key columns and the value's column.

    Raises:
        ValueError: The text is not in this format.
    """
    if file.endswith(".json"):
        return dict(_leaves(json.loads(text)))
    table = read_csv(io.StringIO(text), {}, others="str")
    keys = (
        [column for column in table if column not in ("value", "low", "high")]
        if "value" in table
        else [table.columns[0]]
    )
    return {
        f"{' '.join(str(row[key]) for key in keys)} {column}": number_or_text(row[column])
        for row in table.to_dict("records")
        for column in table.columns
        if column not in keys
    }


def number_or_text(value: Any) -> Any:
    """Return a value as a float where it is a number, else unchanged."""
    try:
        return float(value)
    except ValueError:
        return value


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, float(value) if isinstance(value, int | float) else value
