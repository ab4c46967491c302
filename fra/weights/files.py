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
    """Return the SHA-256 of tensors (on the CPU) and of their metadata."""
    content = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        content.update(name.encode())
        content.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a weights file atomically, see `write_weights`."""
    with atomic(path) as partial:
        write_weights(partial, weights, metadata)


def write_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and metadata (JSON under the key `fra`) as one safetensors file.

    The metadata gets the digest of both (`sha256`), so that a damaged file is noticed when it is read.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    metadata = {**metadata, "sha256": digest(tensors, metadata)}
    # A single key, as safetensors writes several in varying order.
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and metadata of a file that `save_weights` wrote.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is not a safetensors file of this project, or its content does not match its digest.
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
        metadata = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata was not written by this project ({error})") from None
    if metadata.pop("sha256", None) not in (None, digest(weights, metadata)):
        raise ValueError(
            f"{path}: changed since it was written (its SHA-256 differs): train or fetch it again"
        )
    return weights, metadata


def read_network(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of a network and their metadata.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: See `read_weights`; or a weight is not finite.
    """
    weights, metadata = read_weights(path)
    if (name := first_not_finite(weights)) is not None:
        raise ValueError(f"{path}: its {name!r} is not finite: train the network again or use another file")
    return weights, metadata


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with NaN or infinity, or None."""
    return next((name for name, value in weights.items() if not value.isfinite().all()), None)
