"""Drawings of heatmaps: each pixel of a face in the colour of its most probable mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Pixels = NDArray[np.uint8]

GOLDEN_TURN = (5**0.5 - 1) / 2
"""Fraction of the hue circle between consecutive masks; by the golden angle no two hues coincide."""
LIGHTNESS = (0.70, 0.55, 0.82)
CHROMA = 0.17


def palette(masks: int) -> Pixels:
    """Return one colour per mask (masks, 3): hues by the golden angle, alternating lightness (OKLCH, Ottosson 2020)."""
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
    """Return the most probable mask of each pixel (height, width), after bilinear upsampling of the heatmaps."""
    large = functional.interpolate(
        heatmaps_KHW[None].float(), (height, width), mode="bilinear", align_corners=False
    )
    return large[0].argmax(dim=0).cpu().numpy()


def shares(labels: NDArray[np.intp], masks: int) -> NDArray[np.float64]:
    """Return each mask's share of all pixels (masks,), from assignments of any shape."""
    return np.bincount(labels.ravel(), minlength=masks) / labels.size


def paint(image_HW3: Pixels, labels_HW: NDArray[np.intp], colours_K3: Pixels, opacity: float = 0.6) -> Pixels:
    """Tint the grey image with the colour of each pixel's mask: (H, W, 3).

    `opacity` is that of the colours: 0 leaves the grey image, 1 shows flat colours.
    """
    grey_HW1 = (image_HW3 @ np.array([0.299, 0.587, 0.114]))[..., None]
    tinted = (1 - opacity) * grey_HW1 + opacity * colours_K3[labels_HW]
    return _pixels(tinted)


def paint_mean(face_HW3: Pixels, share_HW: NDArray[np.float64], colour_3: Pixels) -> Pixels:
    """Draw one mask's colour over a dim grey mean face: (H, W, 3).

    The opacity is proportional to how often a pixel belongs to the mask, and largest (0.9) at the most frequent pixel.
    """
    grey_HW1 = 0.6 * (face_HW3 @ np.array([0.299, 0.587, 0.114]))[..., None]
    opacity_HW1 = 0.9 * share_HW[..., None] / max(share_HW.max(), 1e-9)
    return _pixels((1 - opacity_HW1) * grey_HW1 + opacity_HW1 * colour_3)


def average_face(faces_NHW3: Pixels, has_mask_NHW: NDArray[np.bool_]) -> Pixels:
    """Average, at each pixel, the faces that have one mask there: (H, W, 3).

    The average fades to grey where fewer than half as many faces have the mask as at its most frequent pixel.
    """
    number_HW1 = has_mask_NHW.sum(axis=0)[..., None]
    total_HW3 = (has_mask_NHW[..., None] * faces_NHW3).sum(axis=0, dtype=float)
    opacity_HW1 = np.minimum(2 * number_HW1 / max(number_HW1.max(), 1), 1)
    return _pixels(opacity_HW1 * total_HW3 / np.maximum(number_HW1, 1) + (1 - opacity_HW1) * 128)


def _pixels(values: NDArray[np.float64]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
