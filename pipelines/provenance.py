"""What a run was made from: code, parameters, environment."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines import params


def commit() -> dict[str, Any]:
    """The code's commit, and whether files under version control differ from it; nulls outside of git."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "fra", "pipelines") if head else None
    return {"commit": head, "modified": bool(changed) if head else None}


def environment() -> dict[str, Any]:
    """What computes: Python, the libraries that make the numbers, the lock file's hash. No host or user names."""
    import torch

    lock = Path("requirements.lock")
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def record(sections: list[str], inputs: dict[str, str]) -> dict[str, Any]:
    """The provenance that travels with an artifact: code, `sections` of params.yaml, environment, inputs by SHA-256."""
    values = params.read()
    return {
        "code": commit(),
        "params": {name: values[name] for name in sections},
        "environment": environment(),
        "inputs": inputs,
    }
