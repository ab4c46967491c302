# /// script
# dependencies = ["albumentations==2.0.8"]
# ///
"""Peer: both views by Albumentations from files decoded by OpenCV, in PyTorch's DataLoader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it looks for a newer version on the network

import albumentations as A
import cv2
from albumentations.pytorch import ToTensorV2
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fra.bench.measure import Work
from fra.bench.peers.serve import serve
from fra.data.views.config import ViewsConfig


def recipe(config: ViewsConfig, size: int, view: int) -> A.Compose:
    """Returns the transforms of view 0 or 1, `size` pixels square."""
    return A.Compose(
        [
            A.RandomResizedCrop((size, size), scale=config.crop_scale, ratio=config.crop_ratio),
            A.HorizontalFlip(p=config.flip_probability),
            A.ColorJitter(
                *(
                    (1 - value, 1 + value)
                    for value in (config.brightness, config.contrast, config.saturation)
                ),
                hue=(-config.hue, config.hue),
                p=config.jitter_probability,
            ),
            A.ToGray(p=config.grey_probability),
            A.GaussianBlur(blur_limit=0, sigma_limit=config.blur_sigma, p=config.blur_probability[view]),
            A.Solarize(threshold_range=(0.5, 0.5), p=config.solarize_probability[view]),
            A.Normalize(config.mean, config.std),
            ToTensorV2(),
        ]
    )


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Both views of every file."""

    def __init__(self, root: str, config: ViewsConfig, size: int) -> None:
        self.files = sorted(str(path) for path in Path(root).rglob("*") if path.is_file())
        self.transforms = [recipe(config, size, view) for view in (0, 1)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        decoded = cv2.imread(self.files[index])
        assert decoded is not None
        image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        view1, view2 = (transform(image=image)["image"] for transform in self.transforms)
        return view1, view2


def prepare(root: str, views: dict[str, Any], image_size: int, batch_size: int, workers: int) -> Work:
    """Returns an epoch over the files below `root`; it yields the number of images of each batch.

    Its processes end with the epoch, so that their CPU seconds are known.
    """
    cv2.setNumThreads(0)  # one process per core
    pairs = DataLoader(
        Pairs(root, ViewsConfig(**views), image_size),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
    )

    def run() -> Iterator[int]:
        for view1, _ in pairs:
            yield len(view1)

    return run


if __name__ == "__main__":
    serve(prepare)
