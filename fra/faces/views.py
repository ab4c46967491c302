"""Square views of places in a photograph: scaled, rotated or mirrored."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from fra.faces.crop import Transform, apply, at_pixel_centres, invert, part_around
from fra.faces.detect import Face, Pixels

GREY, CONTRAST = 120.0, 54.0
"""Mean and standard deviation of the grey values of a well lit face."""
MAX_GAIN = 6.0
"""Largest factor of contrast: more would show the noise of the camera only."""
MAX_WARPED = 32_766
"""Longest side, in pixels, of an image that OpenCV warps."""


class Look(NamedTuple):
    """How a place is looked at.

    Attributes:
        side: Pixels of the square.
        surroundings: What it shows on each side of a face's box, as a share of the box's longer side.
        mirrored: Whether it is mirrored.
        equalised: Whether its middle gets the brightness of a well lit face, and at least its contrast.
    """

    side: int
    surroundings: float
    mirrored: bool = False
    equalised: bool = False


class View(NamedTuple):
    """A square view of a face.

    Attributes:
        transform_23: From pixels of the photograph to pixels of the square, before it is mirrored.
        look: Size, surroundings and mirroring.
        angle: By how many degrees the photograph is rotated in it, counter-clockwise.
        scale: Pixels of the square per pixel of the photograph.
        reach: Half of the face's longer side, in pixels of the square.
    """

    transform_23: Transform
    look: Look
    angle: float
    scale: float
    reach: float

    @classmethod
    def of(cls, face: Face, look: Look, angle: float = 0.0) -> View:
        """The view with a face in its middle."""
        scale = look.side / (max(face.box[2:]) * (1 + 2 * look.surroundings))
        x, y = face.centre.tolist()
        transform_23 = np.asarray(cv2.getRotationMatrix2D((x, y), angle, scale), np.float64)
        transform_23[:, 2] += look.side / 2 - face.centre
        return cls(transform_23, look, angle, scale, max(face.box[2:]) / 2 * scale)

    def best(self, found: list[Face]) -> Face | None:
        """The face with the highest score, of those found in the square as it is shown, in pixels of the square.

        Only faces whose centre is in the viewed face's box count.
        """
        middle = self.look.side / 2
        at_centre = [face for face in found if np.abs(face.centre - middle).max() < self.reach]
        face = max(at_centre, key=lambda face: face.score, default=None)
        return face.mirrored(self.look.side) if face is not None and self.look.mirrored else face

    def in_photograph(self, face: Face) -> Face:
        """A face of the square in pixels of the photograph; its box stays upright there."""
        back_23 = invert(self.transform_23)
        x, y = apply(back_23, face.centre[None])[0].tolist()
        width, height = face.box[2] / self.scale, face.box[3] / self.scale
        return Face(
            (x - width / 2, y - height / 2, width, height), apply(back_23, face.points_52), face.score
        )


class Pyramid:
    """A photograph in its own size, a half, a quarter …, each made when it is first needed.

    What is less than half as large as in the photograph is taken from a smaller level, whose pixels are averages: that
    costs little and skips no pixels (aliasing).
    """

    def __init__(self, photo_HW3: Pixels) -> None:
        """Takes an upright photograph."""
        self._levels = [photo_HW3]

    def shrunk(self, size: tuple[int, int]) -> Pixels:
        """The whole photograph in a smaller size (width, height)."""
        height, width = self._levels[0].shape[:2]
        level = self._levels[self._level(max(size[0] / width, size[1] / height))]
        return np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_LINEAR), np.uint8)

    def pixels(self, view: View) -> Pixels:
        """The pixels (side, side, 3) of a view; beyond the photograph its edge is repeated."""
        number = self._level(view.scale)
        move_23 = (
            at_pixel_centres(view.transform_23, np.full(2, 2.0**number)) if number else view.transform_23
        )
        level, side = self._levels[number], view.look.side
        if max(level.shape[:2]) > MAX_WARPED:
            level, corner = part_around(level, move_23, side)
            move_23 = np.column_stack([move_23[:, :2], move_23[:, 2] + move_23[:, :2] @ corner])
        square = cv2.warpAffine(
            level, move_23, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        if view.look.equalised:
            square = equalised(np.asarray(square, np.uint8))
        return np.asarray(square[:, ::-1] if view.look.mirrored else square, np.uint8)

    def _level(self, scale: float) -> int:
        """The number of the smallest level that has at least the pixels for a scale; it is made where it is missing."""
        number = max(0, int(np.log2(1 / scale)))
        while len(self._levels) <= number and min(self._levels[-1].shape[:2]) >= 4:
            last = self._levels[-1]
            height, width = last.shape[0] // 2, last.shape[1] // 2
            half = cv2.resize(last[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
            self._levels.append(np.asarray(half, np.uint8))
        return min(number, len(self._levels) - 1)


def equalised(square_HW3: Pixels) -> Pixels:
    """A square whose middle has the brightness of a well lit face, and at least its contrast."""
    edge = len(square_HW3) // 6
    grey_HW = cv2.cvtColor(square_HW3[edge:-edge, edge:-edge], cv2.COLOR_RGB2GRAY)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey_HW))
    gain = min(max(CONTRAST / max(deviation, 1.0), 1.0), MAX_GAIN)
    table = np.clip((np.arange(256) - mean) * gain + GREY, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(square_HW3, table), np.uint8)
