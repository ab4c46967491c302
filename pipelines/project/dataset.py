"""Which data set a data stage works on: that of pre-training, or a labelled one that tasks are judged on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fra.data.datasets.records import DatasetConfig
from pipelines import params
from pipelines.project import paths


def chosen(arguments: list[str] | None = None) -> DatasetConfig:
    """The set named on the command line (a key of `benchmarks`), or else `dataset`."""
    named = sys.argv[1:] if arguments is None else arguments
    return params.section(f"benchmarks.{named[0]}" if named else "dataset", DatasetConfig)


def validation_of(config: DatasetConfig) -> Path:
    """Where the verdict on a set lies: the pre-training set's at the top, each other one's in a folder of its name."""
    primary = params.section("dataset", DatasetConfig).name
    return paths.VALIDATION if config.name == primary else paths.VALIDATION / config.name


def withdrawn(name: str) -> frozenset[str]:
    """Who took the consent back: the people of a set that `fra data withdraw` took out."""
    files = sorted((paths.WITHDRAWN / name).glob("*.json"))
    return frozenset(json.loads(file.read_text(encoding="utf-8"))["person"] for file in files)
