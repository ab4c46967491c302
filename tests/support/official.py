"""The tiny problem that the official code computed: its numbers, and our networks with its weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fra.method.networks import FRA
from fra.weights.official import load_official


@cache
def _numbers() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("official.npz")) as archive:
        return dict(archive)


def tensor(key: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(_numbers()[key].copy()).to(dtype)


def size(name: str) -> int:
    return int(_numbers()[f"cfg/{name}"])


def number(key: str) -> float:
    return float(_numbers()[key])


def under(prefix: str) -> dict[str, Tensor]:
    """Every entry below a prefix, by the rest of its name."""
    return {key.removeprefix(prefix): tensor(key) for key in _numbers() if key.startswith(prefix)}


class TinyBackbone(nn.Module):
    feature_dim = size("feature_dim")

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.feature_dim, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(self.feature_dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn(self.conv(images)).relu()


def networks(dtype: torch.dtype = torch.float32) -> FRA:
    model = FRA(
        TinyBackbone(),
        feature_dim=size("feature_dim"),
        num_masks=size("num_masks"),
        hidden_dim=size("hidden_dim"),
        projection_dim=size("projection_dim"),
        dropout=0.0,
    ).to(dtype)
    report = load_official(model, under("state/"))
    assert not report.missing
    assert not report.unexpected
    return model


def views(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return tensor("in/view1", dtype), tensor("in/view2", dtype)
