"""The data set that a data stage works on: that of pre-training, or a labelled one that a task is evaluated on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

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
    """Returns the people of a data set who withdrew their consent (`fra data withdraw`)."""
    files = sorted((paths.WITHDRAWN / name).glob("*.json"))
    return frozenset(json.loads(file.read_text(encoding="utf-8"))["person"] for file in files)
