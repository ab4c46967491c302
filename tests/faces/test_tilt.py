"""Heads tilted to the side: found, with points that follow the tilt, and upright in aligned crops."""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np
import pytest
import skimage.data
from support.scenes import orl_photographs

from fra.faces.config import FacesConfig
from fra.faces.detect import Detector, Face, Pixels
from fra.faces.detectors import DetectorName, detector
from fra.faces.extract import FaceCrop, crop_faces

CONFIG = FacesConfig(keep="largest")


@pytest.fixture(scope="module")
def photographs() -> list[Pixels]:
    """The astronaut, and people of ORL with space around them; none of them tilts the head much."""
    people = list(islice(orl_photographs(), 0, 180, 57))[:3]
    return [skimage.data.astronaut(), *(pad(photo) for photo in people)]


def pad(photo_HW3: Pixels) -> Pixels:
    return np.asarray(cv2.copyMakeBorder(photo_HW3, 94, 94, 104, 104, cv2.BORDER_REPLICATE), np.uint8)


def rotated(photo_HW3: Pixels, degrees: float, face: Face) -> Pixels:
    """The photograph rotated clockwise about a face."""
    x, y = face.centre.tolist()
    size = photo_HW3.shape[1], photo_HW3.shape[0]
    turn_23 = cv2.getRotationMatrix2D((x, y), -degrees, 1)
    return np.asarray(cv2.warpAffine(photo_HW3, turn_23, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def roll(face: Face) -> float:
    """By how many degrees the line of the eyes falls to the right."""
    x, y = face.points_52[1] - face.points_52[0]
    return float(np.degrees(np.arctan2(y, x)))


def largest(photo_HW3: Pixels, model: Detector) -> FaceCrop:
    (crop,) = crop_faces(photo_HW3, "aligned", CONFIG, model)
    return crop


@pytest.mark.parametrize(
    ("name", "angles", "tolerance"), [("yunet", (-45, -33, -10, 20, 45), 6), ("centerface", (-30, 30), 8)]
)
def test_points_follow_a_rotation(
    name: DetectorName, angles: tuple[int, ...], tolerance: int, photographs: list[Pixels]
) -> None:
    model = detector(name, CONFIG.score)
    for photo in photographs if name == "yunet" else photographs[:1]:
        upright = largest(photo, model).face
        for degrees in angles:
            found = largest(rotated(photo, degrees, upright), model).face
            assert roll(found) - roll(upright) == pytest.approx(degrees, abs=tolerance)
            eyes = np.linalg.norm(upright.points_52[1] - upright.points_52[0])
            assert np.abs(found.centre - upright.centre).max() < 0.4 * eyes


def test_a_tilted_head_is_upright_in_its_aligned_crop(photographs: list[Pixels]) -> None:
    """Another detector finds level eyes in the crop, and the crop resembles that of the upright photograph."""
    model, second = detector("yunet", CONFIG.score), detector("centerface", 0.5)
    for photo in photographs[:2]:
        upright = largest(photo, model)
        for degrees in (-40, 25):
            crop = largest(rotated(photo, degrees, upright.face), model)
            (seen,) = second.detect(crop.pixels_HW3)
            assert abs(roll(seen)) < 8
            shown, expected = (one.pixels_HW3[60:164, 60:164].ravel() for one in (crop, upright))
            assert np.corrcoef(shown, expected)[0, 1] > 0.8


def test_points_of_an_upright_face_hardly_move(photographs: list[Pixels]) -> None:
    model = detector("yunet", CONFIG.score)
    for photo in photographs:
        (face,) = model.detect(photo)
        (followed,) = model.follow_tilt(photo, [face])
        eyes = np.linalg.norm(face.points_52[1] - face.points_52[0])
        assert np.abs(followed.points_52 - face.points_52).max() < 0.25 * eyes
        assert (followed.box, followed.score) == (face.box, face.score)
    assert model.follow_tilt(photographs[0], []) == []
