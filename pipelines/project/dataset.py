"""The data set that a data stage works on: that of pre-training, or a labelled one that a task is evaluated on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fra.data.datasets.records import DatasetConfig
from pipelines import params
from pipelines.project import paths


def selected_dataset() -> DatasetConfig:
    """Returns the data set that the command line names (a key of `benchmarks`), else that of pre-training."""
    named = sys.argv[1:]
    return params.section(f"benchmarks.{named[0]}" if named else "dataset", DatasetConfig)


def validation_folder(name: str) -> Path:
    """Returns the folder of a data set's validation result: below `paths.VALIDATION` for all but the first set."""
    primary = params.section("dataset", DatasetConfig).name
    return paths.VALIDATION if name == primary else paths.VALIDATION / name


def withdrawn_people(name: str) -> frozenset[str]:
    """Returns the people of a data set who withdrew their consent (`fra data withdraw`).

    Raises:
        ValueError: a record of a withdrawal is malformed.
    """
    return frozenset(
        record["person"]
        for file in withdrawal_files()
        if (record := read_withdrawal(file))["dataset"] == name
    )


def withdrawal_files(root: Path = Path()) -> list[Path]:
    """The records of withdrawals, `data/withdrawn/<data set>/<person>.json`."""
    return sorted((root / paths.WITHDRAWN).glob("*/*.json"))


def read_withdrawal(file: Path) -> dict[str, Any]:
    """Reads the record of a withdrawal.

    Raises:
        ValueError: the file is not such a record.
    """
    kinds = {"person": str, "dataset": str, "signed_off_by": str, "date": str, "stale": dict}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    except (ValueError, AttributeError, RecursionError):
        wrong = ["JSON"]
    if not wrong and content["dataset"] != file.parent.name:
        wrong = [f"dataset {file.parent.name}"]
    if wrong:
        raise ValueError(
            f"{file}: not a withdrawal record ({', '.join(wrong)} missing): restore it with `git checkout`"
        )
    return content
