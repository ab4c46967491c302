"""Frozen features of a backbone, computed once per backbone and data set and cached by a hash of their inputs."""

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
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from fra import parallel
from fra.data import images
from fra.faces import crop
from fra.files import atomic, sha256
from fra.method import backbone as backbones
from fra.transfer import align
from fra.weights import pretrained
from fra.weights.pretrained import PretrainedBackbone

PIXEL_CODE = (images, align, crop)
FEATURE_CODE = (*PIXEL_CODE, backbones, pretrained, parallel)
"""Modules that pixels and features are computed by, besides this one; their content is part of the cache key."""

CHUNK = 1024
"""Images decoded at a time."""

View = Literal["pooled", "grid"]
"""Pooling of a feature map: its mean, or its mean in each cell of a grid (for tasks about positions)."""


@dataclass(frozen=True)
class Source:
    """Where images are read from and features are cached.

    Attributes:
        shards: Folder of tar shards.
        cache: Folder of cached features.
        aligned: Whether faces are aligned by their landmarks.
    """

    shards: Path
    cache: Path
    aligned: bool


def extract(
    encoder: PretrainedBackbone,
    frame: pd.DataFrame,
    source: Source,
    view: View,
    grid: int,
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the features of the manifest's rows: (N, C) pooled, or (N, C·grid·grid) on a grid.

    Cached by images, settings, weights and code. The cache is written atomically, so several processes may compute the
    same features at once.
    """
    path = source.cache / f"features-{_fingerprint(encoder, frame, source.aligned, view, grid)}.npy"
    if not path.is_file():
        encoder.to(device)
        _save(path, _forward(encoder, frame, source, view, grid))
    features: NDArray[np.float32] = np.load(path)
    return features


def pixels(encoder: PretrainedBackbone, frame: pd.DataFrame, source: Source) -> NDArray[np.uint8]:
    """Return the images at the encoder's size: (N, H, W, 3), memory-mapped from the cache."""
    path = source.cache / f"pixels-{_fingerprint(encoder, frame, source.aligned)}.npy"
    if not path.is_file():
        _save(path, np.concatenate(list(_chunks(encoder, frame, source))))
    found: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return found


def pool(map_BCHW: Tensor, view: View, grid: int) -> Tensor:
    """Pool feature maps: (B, C, H, W) → (B, C) or (B, C·grid·grid); a map smaller than the grid keeps its size."""
    height, width = map_BCHW.shape[-2:]
    size = (1, 1) if view == "pooled" else (min(grid, height), min(grid, width))
    return functional.adaptive_avg_pool2d(map_BCHW, size).flatten(1)


def _chunks(encoder: PretrainedBackbone, frame: pd.DataFrame, source: Source) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(frame), CHUNK):
        rows = frame.iloc[start : start + CHUNK]
        yield align.read(rows, source.shards, encoder.image_size, source.aligned)


def _forward(
    encoder: PretrainedBackbone, frame: pd.DataFrame, source: Source, view: View, grid: int
) -> NDArray[np.float32]:
    @torch.inference_mode()
    def features(pixels_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = encoder.normalise(pixels_BHW3)
        pooled: NDArray[np.float32] = pool(encoder.backbone(batch).float(), view, grid).cpu().numpy()
        return pooled

    batches = (
        chunk[first : first + 64]
        for chunk in _chunks(encoder, frame, source)
        for first in range(0, len(chunk), 64)
    )
    parts = []
    with tqdm(total=len(frame), desc=f"features ({view})", unit="img", mininterval=1) as bar:
        for part in parallel.map_batches(features, batches, encoder.device):
            parts.append(part)
            bar.update(len(part))
    return np.concatenate(parts)


def _save(path: Path, values: NDArray[Any]) -> None:
    with atomic(path) as partial, partial.open("wb") as stream:
        np.save(stream, values)


def _fingerprint(
    encoder: PretrainedBackbone, frame: pd.DataFrame, aligned: bool, view: View | None = None, grid: int = 0
) -> str:
    """Hash everything that features (or pixels, without a view) depend on: images, order, settings, weights, code."""
    digest = hashlib.sha256()
    settings: list[Any] = [encoder.image_size, aligned]
    modules = PIXEL_CODE if view is None else FEATURE_CODE
    files = [Path(str(module.__file__)) for module in modules]
    if view is not None:
        settings += [
            encoder.metadata["mean"],
            encoder.metadata["std"],
            view,
            grid if view == "grid" else 0,
            torch.__version__,
        ]
        files.append(Path(__file__))
        for name, tensor in sorted(encoder.backbone.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    digest.update(json.dumps([settings, [sha256(file) for file in files]]).encode())
    for key, content, landmarks in zip(frame["key"], frame["sha256"], frame["landmarks"], strict=True):
        points = np.asarray(landmarks, np.float32).tobytes() if aligned and landmarks is not None else b""
        digest.update(f"{key}\0{content}\n".encode() + points)
    return digest.hexdigest()
