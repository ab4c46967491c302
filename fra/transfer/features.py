"""Frozen features of a backbone: computed once for each backbone and data set, kept by their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from fra.data import images
from fra.files import atomic, sha256
from fra.method import backbone as backbones
from fra.transfer import faces
from fra.weights import released
from fra.weights.files import read_network

CHUNK = 1024
"""Images decoded at a time."""

View = Literal["pooled", "grid"]
"""What is kept of a feature map: its mean, or its mean in each cell of a grid (where things are matters)."""


@dataclass(frozen=True)
class Encoder:
    """A frozen backbone and the images that it expects. `mean` and `std` are for RGB in 0…1."""

    backbone: nn.Module
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Source:
    """Where images come from and features go: the folder of shards, and that of the cache."""

    shards: Path
    cache: Path
    aligned: bool


def load(path: Path, seed: int | None = None) -> Encoder:
    """The backbone of `backbone.safetensors`, of `model.safetensors` or of released weights ("demo").

    With a seed, the same architecture with random weights instead.

    Raises:
        FileNotFoundError, ValueError: see `fra.train.checkpoint.read_network`.
    """
    weights, about = read_network(released.find(path))
    if about.get("contents") == "model":
        part = "backbone."
        weights = {name[len(part) :]: value for name, value in weights.items() if name.startswith(part)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if seed is None else seed)
        backbone = backbones.build(about["backbone"])
    if seed is None:
        backbone.load_state_dict(weights)
    return Encoder(backbone.eval(), about["image_size"], tuple(about["mean"]), tuple(about["std"]))


def extract(
    encoder: Encoder, frame: pd.DataFrame, source: Source, view: View, grid: int, device: torch.device
) -> NDArray[np.float32]:
    """Features of the manifest's rows, in their order: (N, C) pooled, (N, C·grid·grid) as a grid.

    Read from the cache where the same images went through the same weights and code before. Written whole
    or not at all, so several processes may ask for the same at a time.
    """
    path = source.cache / f"features-{_fingerprint(encoder, frame, source.aligned, view, grid)}.npy"
    if not path.is_file():
        encoder.backbone.to(device)
        _save(path, _forward(encoder, frame, source, view, grid, device))
    features: NDArray[np.float32] = np.load(path)
    return features


def pixels(encoder: Encoder, frame: pd.DataFrame, source: Source) -> NDArray[np.uint8]:
    """The images themselves, of the encoder's size: (N, H, W, 3), memory-mapped from the cache."""
    path = source.cache / f"pixels-{_fingerprint(encoder, frame, source.aligned)}.npy"
    if not path.is_file():
        _save(path, np.concatenate(list(_chunks(encoder, frame, source))))
    found: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return found


def normalise(images_BHW3: NDArray[np.uint8], encoder: Encoder, device: torch.device) -> Tensor:
    """Bytes to what the backbone saw in pre-training: (B, 3, H, W) float32 on the device."""
    batch = torch.from_numpy(images_BHW3).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (encoder.mean, encoder.std))
    return (batch - mean) / std


def pool(map_BCHW: Tensor, view: View, grid: int) -> Tensor:
    """(B, C, H, W) → (B, C) or (B, C·grid·grid); a map smaller than the grid keeps its own size."""
    height, width = map_BCHW.shape[-2:]
    size = (1, 1) if view == "pooled" else (min(grid, height), min(grid, width))
    return functional.adaptive_avg_pool2d(map_BCHW, size).flatten(1)


def _chunks(encoder: Encoder, frame: pd.DataFrame, source: Source) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(frame), CHUNK):
        rows = frame.iloc[start : start + CHUNK]
        yield faces.read(rows, source.shards, encoder.image_size, source.aligned)


def _forward(
    encoder: Encoder, frame: pd.DataFrame, source: Source, view: View, grid: int, device: torch.device
) -> NDArray[np.float32]:
    parts = []
    with (
        torch.inference_mode(),
        tqdm(total=len(frame), desc=f"features ({view})", unit="img", mininterval=1) as bar,
    ):
        for chunk in _chunks(encoder, frame, source):
            for first in range(0, len(chunk), 64):
                batch = normalise(chunk[first : first + 64], encoder, device)
                parts.append(pool(encoder.backbone(batch).float(), view, grid).cpu().numpy())
                bar.update(len(batch))
    return np.concatenate(parts)


def _save(path: Path, values: NDArray[Any]) -> None:
    with atomic(path) as partial, partial.open("wb") as stream:
        np.save(stream, values)


def _fingerprint(
    encoder: Encoder, frame: pd.DataFrame, aligned: bool, view: View | None = None, grid: int = 0
) -> str:
    """A hash of all that features (pixels: no view) depend on: images, order, settings, weights, code."""
    digest = hashlib.sha256()
    settings: list[Any] = [encoder.image_size, aligned]
    modules = [images.__file__, faces.__file__]
    if view is not None:
        settings += [encoder.mean, encoder.std, view, grid if view == "grid" else 0, torch.__version__]
        modules += [backbones.__file__, __file__]
        for name, tensor in sorted(encoder.backbone.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    digest.update(json.dumps([settings, [sha256(Path(str(module))) for module in modules]]).encode())
    for key, content, landmarks in zip(frame["key"], frame["sha256"], frame["landmarks"], strict=True):
        place = np.asarray(landmarks, np.float32).tobytes() if aligned and landmarks is not None else b""
        digest.update(f"{key}\0{content}\n".encode() + place)
    return digest.hexdigest()
