"""The path of every artifact, relative to the project's root; dvc.yaml has the same paths."""

from __future__ import annotations

from pathlib import Path

WORK = Path(".work")
"""Intermediate files that DVC does not see: checkpoints, cached features, locks, the state of stages."""
WITHDRAWN = Path("data/withdrawn")
"""Records of withdrawn consent: `<data set>/<person>.json`."""
APPROVED = Path("data/approved")
"""Records of who approved a validation result: `<data set>.json`."""
BASELINES = Path("data/baselines")
"""Backbones that ours is compared with; the stage `transfer` depends on this folder."""
VALIDATION = Path("artifacts/validation")
PRETRAIN = Path("artifacts/pretrain")
TRANSFER = Path("artifacts/transfer")
REPORT = Path("artifacts/report")
BACKBONE = PRETRAIN / "backbone.safetensors"
MODEL = PRETRAIN / "model.safetensors"
"""The backbone with its region branch."""
STATEMENT = Path("artifacts/attestation/backbone.intoto.json")
"""The in-toto statement about the backbone that `fra lineage attest` writes."""
RESULTS = Path("artifacts/results.json")
"""The main metric of each task, which `dvc exp show` compares."""


def raw(name: str) -> Path:
    """Returns the folder with the records of a data set, and with its images if the project has them."""
    return Path("data/raw") / name


def frames(name: str) -> Path:
    """Returns the folder of state with the frames of a data set's videos."""
    return WORK / "frames" / name


def shards(name: str) -> Path:
    """Returns the folder with the tar shards of a data set."""
    return Path("data/shards") / name


def beton(name: str) -> Path:
    """Returns the folder with the betons (FFCV files) of a data set."""
    return Path("data/beton") / name


def manifest(name: str) -> Path:
    """Returns the manifest of a data set: one row for each image."""
    return Path("data/manifest") / f"{name}.parquet"


def of_dataset(name: str) -> list[str]:
    """Everything that `ingest` and `shard` make of a data set, as dvc.yaml names it."""
    return [path.as_posix() for path in (raw(name), shards(name), beton(name), manifest(name))]
