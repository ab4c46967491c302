from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.scenes import generated_faces, orl_photographs, scene

from fra.faces.yunet import YuNet


def test_every_orl_photograph_has_one_face() -> None:
    detector = YuNet()
    counts = [len(detector.detect(photo)) for photo in orl_photographs()]
    assert counts == [1] * 400


@pytest.mark.slow
def test_faces_of_every_size_are_found_in_synthetic_scenes() -> None:
    detector, generator = YuNet(), np.random.default_rng(0)
    faces = generated_faces(60, seed=9000)
    hits = false = 0
    for image, side in zip(faces, np.geomspace(30, 400, len(faces)).astype(int).tolist(), strict=True):
        shown = scene(image, side, generator)
        found = detector.detect(shown.photo_HW3)
        hits += any(map(shown.shows, found))
        false += sum(not shown.shows(face) for face in found)
    assert hits >= 54  # four are found at no size: dark, in profile, behind bars
    assert false <= 2


@pytest.mark.parametrize("side", [100, *(pytest.param(side, marks=pytest.mark.slow) for side in (40, 300))])
def test_orl_faces_are_found_in_synthetic_scenes(side: int) -> None:
    detector, generator = YuNet(), np.random.default_rng(side)
    shown = [scene(photo, side, generator) for photo in list(orl_photographs())[::20]]
    found = [detector.detect(one.photo_HW3) for one in shown]
    assert [[one.shows(face) for face in faces] for one, faces in zip(shown, found, strict=True)] == [
        [True]
    ] * 20


def test_a_face_that_fills_a_large_photograph_is_found_once() -> None:
    photo = cv2.resize(next(orl_photographs()), (1840, 2240), interpolation=cv2.INTER_CUBIC)
    assert len(YuNet().detect(np.asarray(photo, np.uint8))) == 1


@pytest.mark.parametrize("side", [60, 200])
def test_a_mirrored_photograph_has_the_mirrored_face(side: int) -> None:
    shown = scene(next(orl_photographs()), side, np.random.default_rng(1))
    (face,) = YuNet().detect(shown.photo_HW3)
    (other,) = YuNet().detect(np.ascontiguousarray(shown.photo_HW3[:, ::-1]))
    np.testing.assert_allclose(
        other.mirrored(shown.photo_HW3.shape[1]).points_52, face.points_52, atol=0.08 * side
    )
