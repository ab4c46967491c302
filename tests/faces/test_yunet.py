from __future__ import annotations

import cv2
import numpy as np
from support.scenes import generated_faces, orl_photographs, scene

from fra.faces.detect import Face
from fra.faces.yunet import YuNet


def covers(face: Face, x: int, y: int, side: int) -> bool:
    """Whether a detection is centred on the square at (`x`, `y`)."""
    return bool(np.abs(face.centre - [x + side / 2, y + side / 2]).max() < 0.35 * side)


def test_every_orl_photograph_has_one_face() -> None:
    detector = YuNet()
    counts = [len(detector.detect(photo)) for photo in orl_photographs()]
    assert counts == [1] * 400


def test_faces_of_every_size_are_found_in_synthetic_scenes() -> None:
    detector, generator = YuNet(), np.random.default_rng(0)
    faces = generated_faces(60)
    hits = false = 0
    for image, side in zip(faces, np.geomspace(40, 400, len(faces)).astype(int).tolist(), strict=True):
        photo, x, y = scene(image, side, generator)
        found = detector.detect(photo)
        hits += any(covers(face, x, y, side) for face in found)
        false += sum(not covers(face, x, y, side) for face in found)
    assert hits >= 54  # one generated face in twelve is broken
    assert false <= 1


def test_a_face_that_fills_a_large_photograph_is_found_once() -> None:
    photo = cv2.resize(next(orl_photographs()), (1840, 2240), interpolation=cv2.INTER_CUBIC)
    assert len(YuNet().detect(np.asarray(photo, np.uint8))) == 1
