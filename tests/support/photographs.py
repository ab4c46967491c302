"""A folder of photographs: embedded faces pasted into synthetic scenes, one folder per person."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fra.bench.scenes import background
from support.scenes import Pixels, orl_photographs

SIDE = 140
"""Width in pixels of a pasted face."""


def photograph(faces: list[Pixels], generator: np.random.Generator) -> Pixels:
    """A scene of 800×600 pixels with faces side by side."""
    photo = background(600, 800, generator)
    for number, face in enumerate(faces):
        resized = cv2.resize(face, (SIDE, SIDE * 112 // 92), interpolation=cv2.INTER_CUBIC)
        left, top = 60 + 240 * number, int(generator.integers(40, 300))
        photo[top : top + len(resized), left : left + SIDE] = resized
    return photo


def write_photographs(folder: Path, people: int = 4, each: int = 3) -> Path:
    """Writes `each` photographs with one face of each person, as <person>/<number>.jpg; returns the folder.

    Besides: p0/group.jpg with three faces, p1/landscape.jpg without a face, p2/broken.jpg.
    """
    generator = np.random.default_rng(5)
    faces = list(islice(orl_photographs(), 10 * people))
    for person in range(people):
        (folder / f"p{person}").mkdir(parents=True)
        for number in range(each):
            photo = photograph([faces[10 * person + number]], generator)
            Image.fromarray(photo).save(folder / f"p{person}/{number}.jpg", quality=92)
    group = photograph([faces[10 * person + 9] for person in range(3)], generator)
    Image.fromarray(group).save(folder / "p0/group.jpg", quality=92)
    Image.fromarray(photograph([], generator)).save(folder / "p1/landscape.jpg", quality=92)
    (folder / "p2/broken.jpg").write_bytes((folder / "p0/0.jpg").read_bytes()[:4000])
    return folder
