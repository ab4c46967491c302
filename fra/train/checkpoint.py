"""Weights on disk: safetensors with metadata, official checkpoints, and the checkpoints a run resumes
from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fra.data.files import atomic

logger = logging.getLogger(__name__)

METADATA_KEY = "fra"

# Our words → the official code's, in this order; a backbone's own names are the same in both.
_OFFICIAL_NETWORKS = (
    ("online.", "online_net."),
    ("target.", "target_net."),
    ("global_predictor.", "predictor."),
    ("region_predictor.", "predictor_obj."),
)
_OFFICIAL_PARTS = (
    (".global_mlp.", ".neck.proj."),
    (".region_neck.pixel_mlp.", ".neck.proj_pixel."),
    (".region_neck.region_mlp.", ".neck.proj_obj."),
    (".region_neck.masks_KD", ".neck.proto"),
    (".region_neck.decoder.layers.", ".neck.proj_attn.transformer.decoder.layers."),
    (".region_neck.decoder.norm.", ".neck.proj_attn.transformer.decoder.norm."),
    (".region_neck.decoder.query.", ".neck.proj_attn.query_embed."),
    (".region_neck.decoder.", ".neck.proj_attn."),
    (".cross_attn.", ".multihead_attn."),
    (".mask_embed.0.", ".mask_embed.layers.0."),
    (".mask_embed.2.", ".mask_embed.layers.1."),
    (".mask_embed.4.", ".mask_embed.layers.2."),
    (".expand.", ".mlp.0."),
    (".batch_norm.", ".mlp.1."),
    (".reduce.", ".mlp.3."),
)
# Present in official checkpoints without being part of the method: a buffer never read, a second name of the
# backbone.
_OFFICIAL_EXTRAS = re.compile(r"^(center$|encoder_q\.)")


class LoadReport(NamedTuple):
    """Which weights were found. `matched` and `missing` are our names, `unexpected` those of the file."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]


def official_name(name: str) -> str:
    """The official checkpoint's name of one of `FRA`'s parameters or buffers."""
    for ours, theirs in _OFFICIAL_NETWORKS:
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    if ".backbone." not in name:
        for ours, theirs in _OFFICIAL_PARTS:
            name = name.replace(ours, theirs)
    return name


def load_official(model: nn.Module, state_dict: Mapping[str, Any]) -> LoadReport:
    """Load the weights of an official FRA checkpoint into a `fra.method.networks.FRA`.

    `state_dict` may be the file's whole content (weights under `state_dict` or `model`) and its names may
    begin with `module.` (DistributedDataParallel). 1×1 convolutions become linear layers, weight for weight.
    Names that are not found keep their present values and are reported. Raises ValueError where nothing
    matches or a shape differs, in which case the model is untouched.
    """
    for key in ("state_dict", "model"):
        if isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
    theirs = {name.removeprefix("module."): torch.as_tensor(value) for name, value in state_dict.items()}
    loaded: dict[str, Tensor] = {}
    missing: list[str] = []
    for name, own in model.state_dict().items():
        found = theirs.pop(official_name(name), None)
        if found is None:
            missing.append(name)
            continue
        if found.squeeze().shape != own.squeeze().shape:
            raise ValueError(
                f"official weight {official_name(name)!r} is {tuple(found.shape)}, here {tuple(own.shape)}: "
                "build the model with the checkpoint's backbone, num_masks, projection_dim and hidden_dim"
            )
        loaded[name] = found.reshape(own.shape)
    if not loaded:
        raise ValueError(
            f"no name of an official FRA checkpoint among {len(theirs)}, e.g. {sorted(theirs)[:3]}"
        )
    model.load_state_dict(loaded, strict=False)
    unexpected = [name for name in theirs if not _OFFICIAL_EXTRAS.match(name)]
    return LoadReport(list(loaded), missing, unexpected)


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


class Checkpoints:
    """The last few checkpoints of one run, in a folder of their own: `step-000000123.pt`.

    Each is written whole or not at all (temporary file, flushed to disk, renamed). With several machines the
    folder must be on storage they share: rank 0 writes, all ranks read.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    @contextmanager
    def held(self, patience: float = 60.0) -> Iterator[None]:
        """Keep other runs out of the folder. Waits up to `patience` seconds for one that is still saving and
        going.

        Raises RuntimeError where another run holds the folder for longer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            deadline = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise RuntimeError(
                            f"{self.folder} is in use by another run: wait for it, or end it"
                        ) from None
                    time.sleep(0.2)
            yield

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state after `step` steps and drop all but the last `keep`."""
        path = self.folder / f"step-{step:09d}.pt"
        with atomic(path) as partial, partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The newest readable checkpoint, or None where there is none. A damaged one is set aside with a new
        name."""
        for path in reversed(self.paths()):
            try:
                state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            except Exception as error:  # whatever the bytes make of PyTorch's reader
                damaged = path.with_suffix(".damaged")
                path.replace(damaged)
                logger.warning(
                    "checkpoint %s cannot be read (%s): set aside, trying an older one", path, error
                )
                continue
            return state
        return None

    def remove(self) -> None:
        """Delete what a run leaves in its folder, and the folder if nothing else is in it."""
        for pattern in ("step-*", ".step-*", "diverged-step-*", "history.csv", "lock"):
            for path in self.folder.glob(pattern):
                path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
