"""Sharpness of an image, measured at one size so that it is comparable between images."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 64
"""Pixels of the square at which sharpness is measured."""


def sharpness(grey_HW: NDArray[np.uint8]) -> float:
    """The standard deviation of the Laplacian divided by that of the grey values, both at 64×64 pixels.

    Blur lowers it, noise raises it.
    """
    small = cv2.resize(grey_HW, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    edges = cv2.Laplacian(small, cv2.CV_32F)
    return float(edges.std() / max(float(small.std()), 1.0))
