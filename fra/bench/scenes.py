"""Photographs with a known face: face images pasted into synthetic backgrounds."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from fra.faces.detect import Face, Pixels

LONG, SHORT = 1000, 750
"""Sides of a scene in pixels, upright or lying."""


class Scene(NamedTuple):
    """A photograph with one face image pasted into it.

    Attributes:
        photo_HW3: The photograph.
        corner: Left and top of the pasted image.
        size: Its width and height. It shows a whole head: a detector's box is about two thirds of a generated image
            wide and nine tenths high.
    """

    photo_HW3: Pixels
    corner: tuple[int, int]
    size: tuple[int, int]

    @property
    def side(self) -> int:
        """The longer side of the pasted image."""
        return max(self.size)

    def shows(self, face: Face) -> bool:
        """Whether a detection is of the pasted face: centred in the image, and about as large."""
        centre = np.array(self.corner) + np.array(self.size) / 2
        off = np.abs(face.centre - centre).max() / self.side
        return bool(off < 0.3 and 0.4 < max(face.box[2:]) / self.side < 1.5)


def background(height: int, width: int, generator: np.random.Generator) -> Pixels:
    """Clouds of noise at all scales with rectangles and ellipses: nothing in it is a face."""
    clouds = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        step = 2**octave
        shape = max(2, height // step), max(2, width // step), 3
        noise = generator.standard_normal(shape, np.float32)
        clouds += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(step**0.7)
    pixels = (clouds - clouds.mean()) * (50 / clouds.std()) + generator.uniform(80, 170)
    photo: Pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    for _ in range(12):
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        start, end = (tuple(int(value) for value in generator.integers(0, [width, height])) for _ in range(2))
        if generator.random() < 0.5:
            cv2.rectangle(photo, start, end, colour, int(generator.integers(1, 8)))
        else:
            axes = tuple(int(value) for value in generator.integers(5, 200, 2))
            cv2.ellipse(photo, start, axes, int(generator.integers(360)), 0, 360, colour, 3)
    return photo


def scene(face_HW3: Pixels, side: int, generator: np.random.Generator) -> Scene:
    """A photograph of 1,000 by 750 pixels, upright or lying, with a face at a random place.

    Args:
        face_HW3: The face image.
        side: Pixels to which its longer side is scaled.
        generator: Source of background and place.
    """
    height, width = (SHORT, LONG) if generator.random() < 0.5 else (LONG, SHORT)
    photo = background(height, width, generator)
    scale = side / max(face_HW3.shape[:2])
    size = round(scale * face_HW3.shape[1]), round(scale * face_HW3.shape[0])
    x, y = (int(value) for value in generator.integers(0, [width - size[0], height - size[1]]))
    photo[y : y + size[1], x : x + size[0]] = cv2.resize(
        face_HW3, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    )
    return Scene(photo, (x, y), size)


def random_side(smallest: int, largest: int, generator: np.random.Generator) -> int:
    """A random side from `smallest` to below `largest` pixels, uniform in its logarithm."""
    return int(np.exp(generator.uniform(np.log(smallest), np.log(largest))))
