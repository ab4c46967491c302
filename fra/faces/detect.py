"""What a face detector returns, and how detections at several scales become one list.

A detector finds faces of a limited range of sizes: YuNet those of about 10 to 300 pixels. So a photograph is searched
at two scales, and what both find is merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]

MAX_OVERLAP = 0.3
"""Intersection over union above which two boxes are the same face."""
MAX_INSIDE = 0.8
"""Share of the smaller box inside the larger one above which both are one face, as a nose found in a large face."""


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of the upright photograph.

    Attributes:
        box: left, top, width and height; it may reach beyond the photograph.
        points_52: centres of the eyes, tip of the nose and corners of the mouth, (5, 2) as (x, y). Left and right are
            those of the image: left eye, right eye, nose, left corner, right corner.
        score: confidence, 0 to 1.
    """

    box: tuple[float, float, float, float]
    points_52: Points
    score: float

    def scaled(self, factor: float) -> Face:
        """The same face in a photograph whose sides are `factor` times as long."""
        left, top, width, height = (factor * value for value in self.box)
        return Face((left, top, width, height), self.points_52 * factor, self.score)

    def shifted(self, x: float, y: float) -> Face:
        """The same face in a photograph that this one is a part of, with its corner at (`x`, `y`)."""
        left, top, width, height = self.box
        return Face((left + x, top + y, width, height), self.points_52 + np.array([x, y]), self.score)

    def mirrored(self, width: float) -> Face:
        """The same face in the mirror image of a photograph that is `width` pixels wide."""
        left, top, box_width, height = self.box
        points_52 = self.points_52[[1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
        return Face((width - left - box_width, top, box_width, height), points_52, self.score)

    @property
    def centre(self) -> Points:
        """The centre of the box (x, y)."""
        left, top, width, height = self.box
        return np.array([left + width / 2, top + height / 2])


class Detector(Protocol):
    """Finds faces of any size in a photograph."""

    def detect(self, photo_HW3: Pixels) -> list[Face]:
        """The faces in an upright RGB photograph, highest score first."""
        ...

    def follow_tilt(self, photo_HW3: Pixels, faces: Sequence[Face]) -> list[Face]:
        """The faces that were found in it, with points that follow a rotation of the head in the image plane."""
        ...


def size_within(photo_HW3: Pixels, side: int) -> tuple[tuple[int, int], float]:
    """The size (width, height) of a photograph whose longer side is at most `side`, and the factor back from it."""
    height, width = photo_HW3.shape[:2]
    factor = max(1.0, max(height, width) / side)
    return (max(1, round(width / factor)), max(1, round(height / factor))), factor


def shrink(photo_HW3: Pixels, side: int) -> tuple[Pixels, float]:
    """The photograph with its longer side at most `side` pixels, and the factor from it back to the original."""
    size, factor = size_within(photo_HW3, side)
    return (photo_HW3, 1.0) if factor == 1 else (resize(photo_HW3, size), factor)


def resize(photo_HW3: Pixels, size: tuple[int, int]) -> Pixels:
    """A photograph in another size (width, height): averaged if it is less than half as large, else interpolated."""
    halved = photo_HW3.shape[1] > 2 * size[0] or photo_HW3.shape[0] > 2 * size[1]
    method = cv2.INTER_AREA if halved else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo_HW3, size, interpolation=method), np.uint8)


def merge(faces: Sequence[Face], max_inside: float = MAX_INSIDE) -> list[Face]:
    """Keeps, of detections of the same face (see `same`), the one with the highest score; highest score first."""
    ranked = sorted(faces, key=lambda face: -face.score)
    same_NN = same(ranked, ranked, max_inside)
    kept: list[int] = []
    for index in range(len(ranked)):
        if not same_NN[index, kept].any():
            kept.append(index)
    return [ranked[index] for index in kept]


def same(faces: Sequence[Face], others: Sequence[Face], max_inside: float = MAX_INSIDE) -> NDArray[np.bool_]:
    """Which detections (N) are of the same face as which others (M), by their boxes.

    Args:
        faces: N detections.
        others: M detections.
        max_inside: Share of the smaller box inside the larger one above which both are one face; infinite for never.

    Returns:
        (N, M).
    """
    box_N4, box_M4 = (np.array([face.box for face in some]).reshape(-1, 4) for some in (faces, others))
    start_N2, start_M2 = box_N4[:, :2], box_M4[:, :2]
    end_N2, end_M2 = start_N2 + box_N4[:, 2:], start_M2 + box_M4[:, 2:]
    area_N1, area_M = box_N4[:, 2:].prod(axis=1)[:, None], box_M4[:, 2:].prod(axis=1)
    side_NM2 = np.minimum(end_N2[:, None], end_M2) - np.maximum(start_N2[:, None], start_M2)
    shared_NM = np.maximum(side_NM2, 0).prod(axis=2)
    inside_NM = shared_NM / np.minimum(area_N1, area_M)
    union_NM = area_N1 + area_M - shared_NM
    return np.asarray((shared_NM > MAX_OVERLAP * union_NM) | (inside_NM > max_inside))
