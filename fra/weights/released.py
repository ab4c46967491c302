"""Weights that come with the package, by name: `fra/weights/<name>.safetensors`, each with its model card beside it."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """What is released."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(path: str | Path) -> Path:
    """The file of released weights of that name; any other path as it is. A file of the user's goes first."""
    path = Path(path)
    return FOLDER / f"{path}.safetensors" if not path.exists() and str(path) in names() else path
