"""Heatmaps as pictures: each pixel of a face in the colour of the mask it belongs to most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Pixels = NDArray[np.uint8]

GOLDEN_TURN = (5**0.5 - 1) / 2
"""Share of the colour circle between a mask's hue and the next one's: never falls on an earlier one."""
LIGHTNESS = (0.70, 0.55, 0.82)
CHROMA = 0.17


def palette(masks: int) -> Pixels:
    """One colour a mask, (masks, 3), any number: hues by the golden angle, lightness in turn (OKLCH, Ottosson 2020)."""
    number = np.arange(masks)
    lightness = np.take(LIGHTNESS, number % len(LIGHTNESS))
    hue = 2 * np.pi * ((number * GOLDEN_TURN + 0.08) % 1)
    lab = np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)])
    to_cone = [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
    to_linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip(np.array(to_linear) @ (np.array(to_cone) @ lab) ** 3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return _pixels(255 * encoded.T)


def assign(heatmaps_KHW: Tensor, height: int, width: int) -> NDArray[np.intp]:
    """The mask that each pixel belongs to most, (height, width): heatmaps are enlarged smoothly first."""
    large = functional.interpolate(
        heatmaps_KHW[None].float(), (height, width), mode="bilinear", align_corners=False
    )
    return large[0].argmax(dim=0).cpu().numpy()


def shares(labels: NDArray[np.intp], masks: int) -> NDArray[np.float64]:
    """Share of all pixels that each mask has, (masks,), from assignments of any shape."""
    return np.bincount(labels.ravel(), minlength=masks) / labels.size


def paint(
    image_HW3: Pixels, labels_HW: NDArray[np.intp], colours_K3: Pixels, strength: float = 0.6
) -> Pixels:
    """The image in grey, tinted with the colour of each pixel's mask: (H, W, 3).

    `strength` 0 leaves the grey image, 1 shows flat colours.
    """
    grey_HW1 = (image_HW3 @ np.array([0.299, 0.587, 0.114]))[..., None]
    tinted = (1 - strength) * grey_HW1 + strength * colours_K3[labels_HW]
    return _pixels(tinted)


def paint_mean(face_HW3: Pixels, share_HW: NDArray[np.float64], colour_3: Pixels) -> Pixels:
    """A mean face in dim grey under one mask's colour, opaque where pixels often belong to the mask: (H, W, 3).

    The place where the mask is most often is the most opaque, however often that is.
    """
    grey_HW1 = 0.6 * (face_HW3 @ np.array([0.299, 0.587, 0.114]))[..., None]
    opacity_HW1 = 0.9 * share_HW[..., None] / max(share_HW.max(), 1e-9)
    return _pixels((1 - opacity_HW1) * grey_HW1 + opacity_HW1 * colour_3)


def _pixels(values: NDArray[np.float64]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
