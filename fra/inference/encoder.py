"""A trained encoder from its weights file: embeddings of faces, heatmaps of their regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fra.data.images import decode, read_file, resize, upright
from fra.method import backbone as backbones
from fra.method.networks import Encoder
from fra.weights import released
from fra.weights.files import read_network

AnyImage: TypeAlias = Image.Image | NDArray[np.uint8] | Path | str
REQUIRED = {
    "backbone": ("backbone", "image_size", "mean", "std"),
    "model": ("backbone", "image_size", "mean", "std", "num_masks", "projection_dim", "hidden_dim"),
}
"""What a file of weights must say of itself, by its contents."""


class FaceEncoder(nn.Module):
    """Turns images into what pre-training taught the backbone to see. Made by `load`, in eval mode.

    Images are a list of PIL images, paths, or uint8 arrays (H, W, 3), of any sizes; or a uint8 tensor (N, 3,
    H, W). They are scaled to `image_size` squared (the aspect is not kept) and normalised as in training.
    Faces should fill most of the image, upright, as in the training set.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module | None, metadata: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.metadata = metadata
        self.image_size: int = metadata["image_size"]
        self.register_buffer("mean", torch.tensor(metadata["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(metadata["std"]).view(1, 3, 1, 1), persistent=False)

    @torch.inference_mode()
    def embed(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> Tensor:
        """Pooled features (N, feature_dim), float32, on the module's device."""
        parts = [self._features(batch).mean((2, 3)) for batch in self._batches(images, batch_size)]
        return torch.cat(parts) if parts else self._empty(self.feature_dim)

    @torch.inference_mode()
    def feature_maps(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> Tensor:
        """The backbone's feature maps (N, feature_dim, H, W), float32, on the module's device."""
        parts = [self._features(batch) for batch in self._batches(images, batch_size)]
        return torch.cat(parts) if parts else self._empty(self.feature_dim, 0, 0)

    @torch.inference_mode()
    def heatmaps(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> Tensor:
        """How much each pixel of the feature map belongs to each of the K masks: (N, K, H, W), sums to 1
        over K.

        Raises RuntimeError where the file holds the backbone alone, or a model trained without region branch.
        """
        neck = self.neck
        if neck is None:
            raise RuntimeError(
                "heatmaps need the region branch: load model.safetensors, not backbone.safetensors, "
                "of a model trained with num_masks > 1"
            )
        parts = []
        for batch in self._batches(images, batch_size):
            features_BCHW = self._features(batch)
            height, width = features_BCHW.shape[-2:]
            parts.append(neck(features_BCHW.flatten(2).mT, height, width).heatmaps_BKHW)
        if not parts:
            return self._empty(self.metadata["num_masks"], 0, 0)
        return torch.cat(parts)

    def forward(self, images: Sequence[AnyImage] | Tensor) -> Tensor:
        """Same as `embed`."""
        return self.embed(images)

    @property
    def feature_dim(self) -> int:
        return int(self.backbone.feature_dim)  # type: ignore[arg-type]

    def prepare(self, images: Sequence[AnyImage] | Tensor) -> Tensor:
        """Scaled, normalised images (N, 3, image_size, image_size), float32, on the module's device."""
        size = self.image_size
        if isinstance(images, Tensor):
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
                raise ValueError(
                    f"expected uint8 images (N, 3, H, W), got {images.dtype} {tuple(images.shape)}"
                )
            pixels = list(images.permute(0, 2, 3, 1).cpu().numpy())
        else:
            pixels = [_pixels(image) for image in images]
        sized = [image if image.shape[:2] == (size, size) else resize(image, size) for image in pixels]
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        batch = torch.from_numpy(np.stack(sized)).to(mean.device).permute(0, 3, 1, 2)
        return (batch.float() / 255 - mean) / std

    def _batches(self, images: Sequence[AnyImage] | Tensor, batch_size: int) -> Iterator[Tensor]:
        if isinstance(images, str | Path | Image.Image | np.ndarray):
            raise ValueError(f"expected a list of images, got one {type(images).__name__}: put it in a list")
        for start in range(0, len(images), batch_size):
            yield self.prepare(images[start : start + batch_size])

    def _features(self, batch: Tensor) -> Tensor:
        features: Tensor = self.backbone(batch)
        return features.float()

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(0, *shape, device=self.get_buffer("mean").device)


def _pixels(image: AnyImage) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        path = Path(image)
        try:
            return decode(read_file(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if isinstance(image, Image.Image):
        return np.asarray(upright(image).convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a uint8 array (H, W, 3), got {image.dtype} {image.shape}")
    return image


def load(path: str | Path) -> FaceEncoder:
    """The encoder in a weights file that pre-training wrote, on the CPU, in eval mode.

    `model.safetensors` gives embeddings and heatmaps, `backbone.safetensors` embeddings; "demo" is a small
    model that comes with the package. Raises FileNotFoundError, or ValueError where the file is damaged or
    is not one of these.
    """
    weights, metadata = _read(path)
    encoder, weighed = _build(weights, metadata)
    try:
        weighed.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit its metadata: {error}") from error
    return encoder.eval()


def untrained(path: str | Path, seed: int) -> FaceEncoder:
    """The architecture in a weights file with random weights: where pre-training starts. Raises as `load` does."""
    weights, metadata = _read(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(weights, metadata)[0].eval()


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    file = released.find(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{path}: no such weights file; pre-training writes it, and {', '.join(released.names())} comes with the "
            "package: give the name instead of a path"
        )
    weights, metadata = read_network(file)
    required = REQUIRED.get(metadata.get("contents", ""), ("contents",))
    absent = [name for name in required if name not in metadata]
    if absent:
        raise ValueError(
            f"{path}: its metadata lacks {', '.join(absent)}; load a file that pre-training wrote"
        )
    return weights, metadata


def _build(weights: dict[str, Tensor], metadata: dict[str, Any]) -> tuple[FaceEncoder, nn.Module]:
    """The encoder that a file describes, and the part of it whose weights the file holds."""
    backbone = backbones.build(metadata["backbone"])
    if metadata["contents"] == "backbone":
        return FaceEncoder(backbone, None, metadata), backbone
    online = Encoder(
        backbone,
        feature_dim=backbone.feature_dim,
        num_masks=metadata["num_masks"] if any(name.startswith("region_neck.") for name in weights) else 1,
        hidden_dim=metadata["hidden_dim"],
        projection_dim=metadata["projection_dim"],
        dropout=0.0,
    )
    return FaceEncoder(online.backbone, online.region_neck, metadata), online
