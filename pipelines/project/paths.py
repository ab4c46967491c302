"""Where every artifact lies: one name for each, used by the flows and spelt out in dvc.yaml."""

from __future__ import annotations

from pathlib import Path

WORK = Path(".work")
"""Work in progress that DVC must not see: checkpoints, cached features."""
WITHDRAWN = Path("data/withdrawn")
"""People who took their consent back: `<data set>/<person>.json`."""
APPROVED = Path("data/approved")
"""Who signed a verdict on the data off: `<data set>.json`."""
BASELINES = Path("data/baselines")
"""Backbones to judge beside ours; DVC watches this folder."""
VALIDATION = Path("artifacts/validation")
PRETRAIN = Path("artifacts/pretrain")
TRANSFER = Path("artifacts/transfer")
REPORT = Path("artifacts/report")
BACKBONE = PRETRAIN / "backbone.safetensors"
STATEMENT = Path("artifacts/attestation/backbone.intoto.json")
"""What `fra lineage attest` says about the backbone."""
RESULTS = Path("artifacts/results.json")
"""The few figures that `dvc exp show` compares."""


def raw(name: str) -> Path:
    return Path("data/raw") / name


def shards(name: str) -> Path:
    return Path("data/shards") / name


def beton(name: str) -> Path:
    return Path("data/beton") / name


def manifest(name: str) -> Path:
    return Path("data/manifest") / f"{name}.parquet"
