"""Weights released with the package: `fra/weights/<name>.safetensors`, each with a model card `<name>.md`."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the released weights."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(path: str | Path) -> Path:
    """Return the file of released weights of this name, or the path unchanged; an existing file has precedence."""
    path = Path(path)
    return FOLDER / f"{path}.safetensors" if not path.exists() and str(path) in names() else path


def backbone(name: str) -> str:
    """Return the backbone of released weights, by the metadata of the file; loads no tensor and no PyTorch."""
    with safe_open(find(name), framework="numpy") as file:
        return str(json.loads(file.metadata()["fra"])["backbone"])
