"""Crops of faces: how a photograph is moved, turned and scaled so that a face fills a square image.

Two crops are in use in the field. `box` is a square around the detected box with a margin: the face stays as it is
turned, and its surroundings stay visible. `aligned` brings eyes, nose and mouth to fixed places.
"""

from __future__ import annotations

from typing import assert_never

import cv2
import numpy as np
from numpy.typing import NDArray

from fra.faces.config import CropKind as CropKind
from fra.faces.detect import Face, Pixels, Points

Transform = NDArray[np.float64]
"""An affine transform (2, 3) from pixels (x, y) of the photograph to pixels of the crop."""

TEMPLATE_52 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where the five points are in an aligned crop of 112×112 pixels without margin: ArcFace's template (Deng et al., CVPR
2019, official code)."""
TEMPLATE_SIDE = 112.0


def crop_transform(face: Face, kind: CropKind, size: int, margin: float) -> Transform:
    """The transform that crops a face.

    Args:
        face: a detected face.
        kind: "box" or "aligned".
        size: side of the crop in pixels.
        margin: added on each side, as a share of the box's longer side (box) or of the template's side (aligned).

    Returns:
        (2, 3), from pixels of the photograph to pixels of the crop.
    """
    match kind:
        case "box":
            return box_transform(face.box, size, margin)
        case "aligned":
            place_52 = (TEMPLATE_52 / TEMPLATE_SIDE + margin) / (1 + 2 * margin) * size
            return similarity(face.points_52, place_52)
        case _:
            assert_never(kind)


def box_transform(box: tuple[float, float, float, float], size: int, margin: float) -> Transform:
    """Crops the square around a box: the box's longer side, with `margin` of it added on each side."""
    left, top, width, height = box
    side = max(width, height) * (1 + 2 * margin)
    scale = size / side
    corner = left + width / 2 - side / 2, top + height / 2 - side / 2
    return np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])


def similarity(from_P2: Points, to_P2: Points) -> Transform:
    """The rotation, scale and shift that bring points closest to others in least squares, (2, 3).

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 13 (1991), in the
    plane and without reflection.
    """
    start, end = from_P2 - from_P2.mean(axis=0), to_P2 - to_P2.mean(axis=0)
    cos = np.sum(start * end)
    sin = np.sum(start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0])
    turn_22 = np.array([[cos, -sin], [sin, cos]]) / np.sum(start**2)
    return np.column_stack([turn_22, to_P2.mean(axis=0) - turn_22 @ from_P2.mean(axis=0)])


def apply(transform_23: Transform, points_P2: Points) -> Points:
    """Points (P, 2) of the photograph in pixels of the crop."""
    return np.asarray(points_P2 @ transform_23[:, :2].T + transform_23[:, 2])


def invert(transform_23: Transform) -> Transform:
    """The transform from pixels of the crop to pixels of the photograph."""
    return np.asarray(cv2.invertAffineTransform(transform_23))


def crop(photo_HW3: Pixels, transform_23: Transform, size: int) -> Pixels:
    """The crop (size, size, 3) of a photograph; beyond its edges the edge's pixels are repeated.

    Where the crop is smaller than the part of the photograph that it shows, that part is averaged first, since
    interpolation alone would skip pixels (aliasing).
    """
    scale = float(np.sqrt(abs(np.linalg.det(transform_23[:, :2]))))
    part, corner = part_around(photo_HW3, transform_23, size)
    move_23 = transform_23.copy()
    move_23[:, 2] += transform_23[:, :2] @ corner
    if scale < 0.5:
        height, width = part.shape[:2]
        small = max(1, round(width * scale)), max(1, round(height * scale))
        factor = np.array([width / small[0], height / small[1]])
        part = np.asarray(cv2.resize(part, small, interpolation=cv2.INTER_AREA), np.uint8)
        move_23 = at_pixel_centres(move_23, factor)
    return np.asarray(
        cv2.warpAffine(part, move_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )


def part_around(photo_HW3: Pixels, transform_23: Transform, size: int) -> tuple[Pixels, Points]:
    """The part of a photograph that a crop shows, with one pixel around it, and its corner (x, y)."""
    height, width = photo_HW3.shape[:2]
    corner_42 = apply(
        invert(transform_23), np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    )
    low = np.clip(np.floor(corner_42.min(axis=0)).astype(int) - 1, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(corner_42.max(axis=0)).astype(int) + 2, low + 1, [width, height])
    return photo_HW3[low[1] : high[1], low[0] : high[0]], low.astype(np.float64)


def at_pixel_centres(transform_23: Transform, factor_2: Points) -> Transform:
    """The transform for a photograph whose pixels are `factor_2` (x, y) times as large.

    Pixel centres are at whole numbers: pixel i of the smaller photograph is centred at factor · (i + ½) − ½.
    """
    turn_22 = transform_23[:, :2] * factor_2
    shift_2 = transform_23[:, :2] @ ((factor_2 - 1) / 2) + transform_23[:, 2]
    return np.column_stack([turn_22, shift_2])
