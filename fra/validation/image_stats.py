"""What an image's pixels say of its quality, as numbers: pure functions, (H, W, 3) uint8 in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 64
"""Blur, noise and perceptual hash are measured at 64×64 pixels, so that they mean the same for every size."""
HASH_SIDE = 16
HASH_WORDS = HASH_SIDE * HASH_SIDE // 64


@dataclass(frozen=True)
class Picture:
    """Measures of one image; grey values 0…255, shares 0…1.

    brightness: mean; contrast: standard deviation; sharpness: deviation of the Laplacian over the contrast, at
    64×64 (blur lowers it, noise raises it); clipped: the larger of the shares of black (≤ 2) and white (≥ 253);
    flat: the larger of the shares of rows and of columns without any content (deviation < 1).
    """

    brightness: float
    contrast: float
    sharpness: float
    clipped: float
    flat: float


def measure(image: NDArray[np.uint8]) -> Picture:
    """The measures of one image (H, W, 3)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    edges = cv2.Laplacian(small, cv2.CV_32F)
    return Picture(
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        sharpness=float(edges.std() / max(float(small.std()), 1.0)),
        clipped=float(max((grey <= 2).mean(), (grey >= 253).mean())),
        flat=float(max((grey.std(axis=axis) < 1).mean() for axis in (0, 1))),
    )


def perceptual_hash(image: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """256 bits that stay when an image is compressed, resized or brightened: (4,) words.

    The lowest 16×16 frequencies of the discrete cosine transform of the 64×64 grey image, each 1 where above their
    median (pHash: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010; there 8×8, which
    cannot tell photographs of one person apart). The mean grey value is left out.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:HASH_SIDE, :HASH_SIDE].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return np.packbits(bits).view(np.uint64)


def deviation(image: NDArray[np.uint8], stored: NDArray[np.uint8]) -> float:
    """Mean absolute difference (0…255) in grey of an image and its copy, which may be smaller by area averaging.

    In grey, because JPEG keeps colour at half the resolution: of noise it keeps the grey values, and no more.
    """
    height, width = stored.shape[:2]
    if image.shape != stored.shape:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    one, other = (cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) for pixels in (image, stored))
    return float(cv2.absdiff(one, other).mean())
