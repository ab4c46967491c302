from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.scenes import generated_faces, orl_photographs, scene

from fra.faces import yunet
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


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3000, 3), (40, 40, 3)])
def test_photographs_without_a_face(shape: tuple[int, ...]) -> None:
    assert YuNet().detect(np.full(shape, 128, np.uint8)) == []


def test_a_detection_scales_with_the_photograph() -> None:
    photo: NDArray[np.uint8] = next(orl_photographs())
    large = np.asarray(cv2.resize(photo, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), np.uint8)
    (small_face,), (large_face,) = (YuNet().detect(image) for image in (photo, large))
    eyes = np.linalg.norm(small_face.points_52[1] - small_face.points_52[0])
    assert np.abs(large_face.points_52 / 4 - small_face.points_52).max() < 0.15 * eyes


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "WEIGHTS_SHA256", "0" * 64)
    yunet.weights.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"yunet_2023mar\.onnx: SHA-256 is 8f2383e4.*, expected 0000"):
            YuNet()
    finally:
        yunet.weights.cache_clear()
