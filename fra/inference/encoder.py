"""A trained encoder: embeddings of faces, and heatmaps of their regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fra.data.images import decode, read_file, resize, to_pixels
from fra.method import backbone as backbones
from fra.method.backbone import Backbone
from fra.method.networks import Encoder
from fra.parallel import map_batches
from fra.weights.pretrained import PretrainedBackbone, Stored, read, restore, restore_backbone

AnyImage: TypeAlias = Image.Image | NDArray[np.uint8] | Path | str


class FaceEncoder(PretrainedBackbone):
    """Embeddings and region heatmaps of face images; built by `load`, in eval mode.

    Images are a list of PIL images, paths or uint8 arrays (H, W, 3) of any sizes, or one uint8 tensor (N, 3, H, W).
    They are resized to `image_size` × `image_size` (the aspect ratio is not kept) and normalised as in training. Faces
    should be upright and fill most of the image, as in the training set.
    """

    def __init__(self, backbone: Backbone, neck: nn.Module | None, metadata: dict[str, Any]) -> None:
        super().__init__(backbone, metadata)
        self.neck = neck

    def embed(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> Tensor:
        """Return spatially averaged features (N, feature_dim), float32, on the module's device."""

        @torch.inference_mode()
        def pooled(batch: Sequence[AnyImage] | Tensor) -> Tensor:
            return self._features(self.prepare(batch)).mean((2, 3))

        parts = list(map_batches(pooled, split(images, batch_size), self.device))
        with torch.inference_mode():
            return torch.cat(parts) if parts else self._empty(self.feature_dim)

    @torch.inference_mode()
    def feature_maps(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> Tensor:
        """Return the backbone's feature maps (N, feature_dim, H, W), float32, on the module's device."""
        parts = [self._features(batch) for batch in self._batches(images, batch_size)]
        return torch.cat(parts) if parts else self._empty(self.feature_dim, 0, 0)

    @torch.inference_mode()
    def heatmaps(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> Tensor:
        """Return the probability of each of the K masks at each position of the feature map.

        Returns:
            Heatmaps (N, K, H, W), float32, which sum to 1 over K.

        Raises:
            RuntimeError: The file holds the backbone only, or a model that was trained without region branch.
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
        """Return the same as `embed`."""
        return self.embed(images)

    def prepare(self, images: Sequence[AnyImage] | Tensor) -> Tensor:
        """Resize and normalise images: float32 (N, 3, image_size, image_size) on the module's device.

        Raises:
            ValueError: An image has another type or shape, or cannot be decoded.
            OSError: A file cannot be read.
        """
        size = self.image_size
        sized = [
            image if image.shape[:2] == (size, size) else resize(image, size) for image in pixels_of(images)
        ]
        return self.normalise(np.stack(sized))

    def _batches(self, images: Sequence[AnyImage] | Tensor, batch_size: int) -> Iterator[Tensor]:
        for batch in split(images, batch_size):
            yield self.prepare(batch)

    def _features(self, batch: Tensor) -> Tensor:
        features: Tensor = self.backbone(batch)
        return features.float()

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(0, *shape, device=self.get_buffer("mean").device)


def split(images: Sequence[AnyImage] | Tensor, batch_size: int) -> Iterator[Sequence[AnyImage] | Tensor]:
    """Yield the images, `batch_size` at a time.

    Raises:
        ValueError: It is a single image.
    """
    if isinstance(images, str | Path | Image.Image | np.ndarray):
        raise ValueError(f"expected a list of images, got one {type(images).__name__}: put it in a list")
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size]


def pixels_of(images: Sequence[AnyImage] | Tensor) -> list[NDArray[np.uint8]]:
    """Return the pixels (H, W, 3) of each image, RGB, with the Exif rotation applied.

    Raises:
        ValueError: An image has another type or shape, or cannot be decoded.
        OSError: A file cannot be read.
    """
    if not isinstance(images, Tensor):
        return [_pixels(image) for image in images]
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected uint8 images (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    return list(images.permute(0, 2, 3, 1).cpu().numpy())


def _pixels(image: AnyImage) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        path = Path(image)
        try:
            return decode(read_file(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if isinstance(image, Image.Image):
        return to_pixels(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a uint8 array (H, W, 3), got {image.dtype} {image.shape}")
    return image


def load(path: str | Path, seed: int | None = None) -> FaceEncoder:
    """Load the encoder of a weights file, on the CPU, in eval mode.

    Args:
        path: `model.safetensors` (embeddings and heatmaps), `backbone.safetensors` or a task model (embeddings), or the
            name of released weights ("demo").
        seed: Where given, the same architecture with random weights of this seed, as at the start of pre-training.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged, or its weights do not fit its metadata.
    """
    stored = read(path)
    if stored.metadata["contents"] != "model":
        return FaceEncoder(restore_backbone(stored, seed), None, stored.metadata).eval()
    online = restore(stored, lambda: _online_network(stored), seed)
    return FaceEncoder(cast(Backbone, online.backbone), online.region_neck, stored.metadata).eval()


def _online_network(stored: Stored) -> Encoder:
    backbone, metadata = backbones.build(stored.metadata["backbone"]), stored.metadata
    return Encoder(
        backbone,
        feature_dim=backbone.feature_dim,
        num_masks=metadata["num_masks"]
        if any(name.startswith("region_neck.") for name in stored.weights)
        else 1,
        hidden_dim=metadata["hidden_dim"],
        projection_dim=metadata["projection_dim"],
        dropout=0.0,
    )
