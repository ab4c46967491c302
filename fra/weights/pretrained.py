"""Networks from weight files: the one place where the content of a file becomes a module.

`load` gives the backbone, which is what transfer evaluation needs; `fra.inference.encoder.load` also gives the region
branch. Both read files with `read` and fill modules with `restore`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fra.method import backbone as backbones
from fra.method.backbone import Backbone
from fra.weights import released
from fra.weights.files import read_network

Module = TypeVar("Module", bound=nn.Module)

PREDICTORS = ("global_predictor.", "region_predictor.")
"""Prefixes of the predictors' names in a model.safetensors, which only a continued training needs; the names of the
online network have none."""

IMAGES = ("backbone", "image_size", "mean", "std")
"""Metadata of every weights file: the architecture, and the images that it takes."""

NAME = re.compile(r"[\w.:-]+")
"""What the name of a backbone consists of: an export prints it as a part of Python code."""

REQUIRED = {
    "backbone": IMAGES,
    "model": (*IMAGES, "num_masks", "projection_dim", "hidden_dim"),
    "task": (*IMAGES, "task", "protocol", "outputs", "columns", "crop", "framing"),
}
"""Metadata that a weights file must have, by its `contents`."""

BACKBONE_PREFIX = {"backbone": "", "model": "backbone.", "task": "backbone."}
"""What the names of the backbone's weights begin with, by `contents`."""


class Stored(NamedTuple):
    """Content of a weights file: tensors by name, and metadata as pre-training writes it."""

    path: Path
    weights: dict[str, Tensor]
    metadata: dict[str, Any]


class PretrainedBackbone(nn.Module):
    """A backbone with the preprocessing of the images that it was trained on.

    Attributes:
        backbone: Images (N, 3, h, w) → feature map (N, feature_dim, H, W).
        metadata: The metadata of the weights file.
        image_size: Side of the input images in pixels.
        mean: Buffer (1, 3, 1, 1), mean of RGB in 0…1.
        std: Buffer (1, 3, 1, 1), standard deviation of RGB in 0…1.
    """

    def __init__(self, backbone: Backbone, metadata: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.metadata = metadata
        self.image_size: int = metadata["image_size"]
        self.register_buffer("mean", torch.tensor(metadata["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(metadata["std"]).view(1, 3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the module."""
        return self.get_buffer("mean").device

    @property
    def feature_dim(self) -> int:
        """Number of channels of the backbone's feature map."""
        return self.backbone.feature_dim

    def normalise(self, images_NHW3: NDArray[np.uint8]) -> Tensor:
        """Normalise images as in pre-training: uint8 → float32 (N, 3, H, W) on the module's device."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        batch = torch.from_numpy(images_NHW3).to(mean.device).permute(0, 3, 1, 2)
        return (batch.float() / 255 - mean) / std


def read(path: str | Path) -> Stored:
    """Read and check a weights file.

    Args:
        path: A file that pre-training or `fra import-weights` wrote, or the name of released weights ("demo").

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged, has a weight that is not finite, or lacks metadata.
    """
    file = released.find(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{path}: no such weights file. Pre-training writes one; released weights are used by name "
            f"({', '.join(released.names())})"
        )
    weights, metadata = read_network(file)
    contents = metadata.get("contents")
    if contents is not None and contents not in REQUIRED:
        raise ValueError(f"{path}: holds {contents!r}, which is none of: {', '.join(REQUIRED)}")
    required = ("contents",) if contents is None else REQUIRED[contents]
    if missing := [name for name in required if name not in metadata]:
        raise ValueError(
            f"{path}: its metadata lacks {', '.join(missing)}; load a file that pre-training wrote"
        )
    if not NAME.fullmatch(str(metadata["backbone"])):
        raise ValueError(f"{path}: its backbone {metadata['backbone']!r} is no name of an architecture")
    return Stored(Path(path), weights, metadata)


def restore(stored: Stored, make: Callable[[], Module], seed: int | None = None, prefix: str = "") -> Module:
    """Build a module in eval mode, with the weights of a file or with random ones.

    Args:
        stored: The content of the file.
        make: Builds the module.
        seed: Seed of random weights; None takes the weights of the file.
        prefix: What the names of the module's weights begin with in the file.

    Raises:
        ValueError: The weights do not fit the module.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if seed is None else seed)
        module = make()
    if seed is None:
        weights = {
            name.removeprefix(prefix): value
            for name, value in stored.weights.items()
            if name.startswith(prefix) and not name.startswith(PREDICTORS)
        }
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{stored.path}: its weights do not fit its metadata: {error}") from error
    return module.eval()


def load(path: str | Path, seed: int | None = None) -> PretrainedBackbone:
    """Load the backbone of a weights file, on the CPU, in eval mode.

    Args:
        path: `backbone.safetensors`, `model.safetensors`, a task model, or the name of released weights.
        seed: Where given, the same architecture with random weights of this seed.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged, or its weights do not fit its metadata.
    """
    stored = read(path)
    return PretrainedBackbone(restore_backbone(stored, seed), stored.metadata).eval()


def restore_backbone(stored: Stored, seed: int | None = None) -> Backbone:
    """Build the backbone of a file, see `restore`."""
    prefix = BACKBONE_PREFIX[stored.metadata["contents"]]
    return restore(stored, lambda: backbones.build(stored.metadata["backbone"]), seed, prefix)
