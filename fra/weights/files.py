"""Weight files: safetensors with metadata and a digest over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fra.files import atomic

METADATA_KEY = "fra"


def digest(weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of tensors on the CPU and of their metadata."""
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """`write_weights`, atomically."""
    with atomic(path) as partial:
        write_weights(partial, weights, metadata)


def write_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and metadata (JSON under the key `fra`) as one safetensors file. Their digest goes with them, in
    the metadata (`sha256`): a byte that flips on a disk would else be another weight."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    about = {**metadata, "sha256": digest(tensors, metadata)}
    # One key: safetensors writes several in an order that changes.
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(about, sort_keys=True)})


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and metadata of a file that `save_weights` wrote.

    Raises FileNotFoundError, or ValueError where the file is not a safetensors file of this project, or has changed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file; pre-training writes it")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error})") from error
    if text is None:
        raise ValueError(f"{path}: no '{METADATA_KEY}' metadata; load a file that pre-training wrote")
    try:
        about = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata is none of ours ({error})") from None
    if about.pop("sha256", None) not in (None, digest(weights, about)):
        raise ValueError(f"{path}: changed since it was written (by its SHA-256): make or fetch it again")
    return weights, about


def read_network(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`read_weights` of a network. Raises as it does, and ValueError where a weight is not finite."""
    weights, about = read_weights(path)
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{path}: its {name!r} is not finite: train it anew or take another file")
    return weights, about
