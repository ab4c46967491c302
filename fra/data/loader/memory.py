"""Batches of two crops per image, of images that are in memory: on a GPU, crops are made there too.

The crops are those of the other loaders: the same boxes, scaled by averaging areas (equal up to rounding; where a crop
is shrunk in one direction only, OpenCV interpolates instead). Nothing is decoded, so that small networks on a fast GPU
do not wait for the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fra.data.loader.protocol import steps
from fra.data.views.config import ViewsConfig
from fra.data.views.crops import crop_boxes
from fra.data.views.rng import epoch_key
from fra.data.views.views import Crops


class MemoryPairs:
    """The loader of images in memory, in a new random order each epoch.

    Args:
        images_NHWC: The images (N, H, W, 3), uint8; crops are made on their device.
        image_size: Side of the crops in pixels.
        views: The distribution of the crops.
        batch_size: Images per batch.
        seed: Seed of order and crops.
    """

    def __init__(
        self, images_NHWC: Tensor, image_size: int, views: ViewsConfig, batch_size: int, seed: int
    ) -> None:
        self.steps_per_epoch = steps(len(images_NHWC), batch_size, world_size=1)
        self.images_NHWC = images_NHWC
        self.image_size = image_size
        self.views = views
        self.batch_size = batch_size
        self.seed = seed

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        """The batches of an epoch from `start_step` on; equal arguments give equal batches."""
        key = epoch_key(self.seed, epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images_NHWC))
        height, width = self.images_NHWC.shape[1:3]
        for step in range(start_step, self.steps_per_epoch):
            index_B = order[step * self.batch_size : (step + 1) * self.batch_size]
            images = self.images_NHWC[torch.from_numpy(index_B).to(self.images_NHWC.device)]
            images_BCHW = images.permute(0, 3, 1, 2).float()
            first, second = (
                crop(
                    images_BCHW,
                    torch.from_numpy(
                        crop_boxes(
                            key,
                            index_B,
                            view,
                            height,
                            width,
                            self.views.crop_scale,
                            self.views.crop_ratio,
                        )
                    ),
                    self.image_size,
                )
                for view in range(2)
            )
            yield Crops(first, second, torch.from_numpy(index_B))


def crop(images_BCHW: Tensor, boxes_B4: Tensor, size: int) -> Tensor:
    """Crops each image and scales it by averaging areas, on the device of the images.

    Args:
        images_BCHW: The images, float, in 0…255.
        boxes_B4: Top, left, height and width of each crop in pixels.
        size: Side of the crops in pixels.

    Returns:
        The crops (B, size, size, 3), uint8.
    """
    top_B, left_B, height_B, width_B = boxes_B4.to(images_BCHW.device).float().unbind(1)
    rows = area_weights(top_B, height_B, images_BCHW.shape[2], size).unsqueeze(1)
    columns = area_weights(left_B, width_B, images_BCHW.shape[3], size).unsqueeze(1)
    scaled = rows @ images_BCHW @ columns.transpose(2, 3)
    return scaled.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def area_weights(start_B: Tensor, length_B: Tensor, side: int, size: int) -> Tensor:
    """The share of each of `side` pixels in each of `size` equal parts of an interval: (B, size, side).

    Args:
        start_B: Where the intervals start, in pixels.
        length_B: Their lengths in pixels.
        side: Number of pixels of the image.
        size: Number of parts.
    """
    device = start_B.device
    part_B1 = length_B.unsqueeze(1) / size
    starts = (start_B.unsqueeze(1) + part_B1 * torch.arange(size, device=device)).unsqueeze(2)
    ends = starts + part_B1.unsqueeze(2)
    pixel = torch.arange(side, device=device)
    overlap = torch.minimum(ends, pixel + 1) - torch.maximum(starts, pixel)
    return overlap.clamp_(min=0) / part_B1.unsqueeze(2)
