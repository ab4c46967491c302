"""What dvc.lock does not say of a run: the commit of the code, and the environment. One small file a stage."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fra.files import write_json

FOLDER = Path("artifacts/lineage")
LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "ffcv",
    "webdataset",
    "great-expectations",
    "scikit-learn",
    "dvc",
    "prefect",
)


def git(*arguments: str) -> str | None:
    """What git prints, or None where it fails: outside of a repository, say."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def code() -> dict[str, Any]:
    """The code's commit, and whether code differs from it; nulls outside of git."""
    head = git("rev-parse", "--verify", "--quiet", "HEAD")
    if head is None:
        return {"commit": None, "modified": None}
    changed = git(
        "status", "--porcelain", "--", "fra", "pipelines", "dvc.yaml", ":!pipelines/conf/project.yaml"
    )
    return {"commit": head, "modified": bool(changed)}


def environment() -> dict[str, Any]:
    """What computes: Python, the libraries that make the numbers, the lock file's hash. No host or user names.

    CUDA and the device are told by stages that loaded torch, null by the others.
    """
    lock = Path("requirements.lock")
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": {name: installed(name) for name in LIBRARIES},
        "cuda": torch.version.cuda if on_gpu else None,
        "device": None if torch is None else torch.cuda.get_device_name() if on_gpu else "cpu",
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def provenance(params: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """What travels inside a weights file: code, parameters, environment, and inputs by SHA-256."""
    return {"code": code(), "params": params, "environment": environment(), "inputs": inputs}


def metadata(weights: Path) -> dict[str, Any]:
    """What a weights file of ours says of itself (its `provenance`, too). Raises `KeyError` where nothing."""
    from safetensors import safe_open  # here: most stages have no use for it

    with safe_open(str(weights), framework="numpy") as opened:
        return dict(json.loads((opened.metadata() or {})["fra"]))


def path_of(stage: str) -> Path:
    """Where the record of a stage lies; "transfer@expression" → transfer-expression.json."""
    return FOLDER / f"{stage.replace('@', '-')}.json"


def write(stage: str) -> None:
    """Writes the record of a stage that just ran. No times are in it: the same code and machine, the same record."""
    write_json({"stage": stage, "code": code(), "environment": environment()}, path_of(stage))
