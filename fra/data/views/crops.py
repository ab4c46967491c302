"""Random resized crops from counter-based random numbers (`fra.data.views.rng`): the same in every loader."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fra.data.views.rng import join, uniform

ATTEMPTS = 10
"""Number of attempts to draw a crop that fits into the image, as in torchvision."""


@njit(cache=True)
def crop_box(
    key: np.uint64,
    index: int,
    view: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """The crop for one view of an image.

    The distribution is that of torchvision's RandomResizedCrop: an area uniform in `scale`, an aspect ratio log-uniform
    in `ratio`, ten attempts to place it, then the largest central crop within `ratio`.

    Args:
        key: The random key of the epoch (`epoch_key`).
        index: The image.
        view: 0 or 1.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width divided by height.

    Returns:
        Top, left, height and width in pixels.
    """
    stream = join(join(key, index), view)
    area = float(height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(ATTEMPTS):
        target = area * (scale[0] + (scale[1] - scale[0]) * uniform(stream, 4 * attempt))
        aspect = math.exp(low + (high - low) * uniform(stream, 4 * attempt + 1))
        w = round(math.sqrt(target * aspect))
        h = round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniform(stream, 4 * attempt + 2) * (height - h + 1))
            left = int(uniform(stream, 4 * attempt + 3) * (width - w + 1))
            return top, left, h, w
    h, w = height, width
    if width < height * ratio[0]:
        h = round(width / ratio[0])
    elif width > height * ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


@njit(cache=True)
def crop_boxes(
    key: np.uint64,
    index_B: NDArray[np.int64],
    view: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> NDArray[np.int64]:
    """The crops of several images of one size (see `crop_box`): (B, 4), top, left, height and width in pixels."""
    boxes = np.empty((len(index_B), 4), dtype=np.int64)
    for b in range(len(index_B)):
        boxes[b] = crop_box(key, index_B[b], view, height, width, scale, ratio)
    return boxes
