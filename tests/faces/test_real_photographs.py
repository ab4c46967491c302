"""Photographs in packages of the test environment: clear faces are found, other things are not taken for one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import sklearn

from fra.data.images import decode
from fra.faces.config import FacesConfig
from fra.faces.crop import TEMPLATE_52, apply, crop_transform
from fra.faces.detectors import DetectorName, detector
from fra.faces.select import find, select

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"
EYES = {"astronaut.png": [[203.0, 101.5], [247.5, 103.5]], "camera.png": [[236.0, 146.0]]}
"""Centres (x, y) of the visible eyes, read off the enlarged photographs; the second face is in profile."""
WITHOUT_FACE = [
    "brick.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png", "color.png", "grass.png",
    "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "logo.png", "microaneurysms.png", "moon.png",
    "motorcycle_left.png", "motorcycle_right.png", "page.png", "phantom.png", "retina.jpg", "rocket.jpg", "text.png",
    "china.jpg", "flower.jpg",
]  # fmt: skip
"""All that come with the packages: a cat, things, textures, and buildings among them. A lamp in the garage of the
motorcycle resembles a face at some sizes (docs/results/face-detection.md)."""


def photograph(name: str) -> np.ndarray:
    return decode(((SKIMAGE if (SKIMAGE / name).exists() else SKLEARN) / name).read_bytes())


@pytest.mark.parametrize("detected_by", ["yunet", "centerface"])
@pytest.mark.parametrize("name", EYES)
def test_the_face_is_found_and_its_eyes_are_at_the_templates_height(
    name: str, detected_by: DetectorName
) -> None:
    config = FacesConfig(detector=detected_by)
    (found,) = select(find(photograph(name), detector(detected_by, config.score)), config)
    eye_P2 = np.array(EYES[name])
    np.testing.assert_allclose(found.face.points_52[: len(eye_P2)], eye_P2, atol=4)
    heights = apply(crop_transform(found.face, "aligned", 112, margin=0.0), eye_P2)[:, 1]
    np.testing.assert_allclose(heights, TEMPLATE_52[0, 1], atol=6)


@pytest.mark.parametrize("detected_by", ["yunet", pytest.param("centerface", marks=pytest.mark.slow)])
def test_nothing_else_is_taken_for_a_face(detected_by: DetectorName) -> None:
    config = FacesConfig(detector=detected_by)
    model = detector(detected_by, config.score)
    found = {name: select(find(photograph(name), model), config) for name in WITHOUT_FACE}
    assert {name: faces for name, faces in found.items() if faces} == {}


def test_faces_of_lfw_are_found_at_50_pixels_and_other_crops_are_not() -> None:
    """scikit-image's subset: 100 faces and 100 other parts of photographs, 25×25 pixels each."""
    model = detector("yunet", 0.6)
    counts = []
    for grey in (np.load(SKIMAGE / "lfw_subset.npy") * 255).astype(np.uint8):
        photo_HW3 = np.full((200, 200, 3), 128, np.uint8)
        photo_HW3[75:125, 75:125] = cv2.resize(grey, (50, 50), interpolation=cv2.INTER_CUBIC)[:, :, None]
        counts.append(len(model.detect(photo_HW3)))
    assert sum(counts[:100]) >= 94
    assert max(counts[:100]) == 1
    assert sum(counts[100:]) == 0
