from __future__ import annotations

import cv2
import numpy as np
import pytest

from fra.faces.crop import apply, invert
from fra.faces.detect import Face
from fra.faces.views import GREY, Look, Pyramid, View, equalised

PLACE = np.array([701.0, 411.0])
POINTS_52 = np.array([[-20.0, -20.0], [20.0, -20.0], [0.0, 0.0], [-15.0, 20.0], [15.0, 20.0]])


def around(side: float, shift: float = 0.0) -> Face:
    left, top = (PLACE + shift - side / 2).tolist()
    return Face((left, top, side, side), np.tile(PLACE + shift, (5, 1)), 0.9)


def centre_of(grey_HW: np.ndarray) -> np.ndarray:
    """The centre (x, y) of what is brighter than the background."""
    weight_HW = grey_HW.astype(float) - 40
    x, y = np.meshgrid(np.arange(grey_HW.shape[1]), np.arange(grey_HW.shape[0]))
    return np.array([(weight_HW * x).sum(), (weight_HW * y).sum()]) / weight_HW.sum()


@pytest.mark.parametrize("side", [20, 90, 300, 900])
@pytest.mark.parametrize("angle", [0.0, 35.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_pixels_are_where_the_transform_says(side: int, angle: float, mirrored: bool) -> None:
    """A bright disc, enlarged, and reduced from the photograph's own pixels, their half and less."""
    photo = np.full((900, 1201, 3), 40, np.uint8)
    cv2.circle(photo, (701, 411), max(3, side // 20), (240, 240, 240), -1, cv2.LINE_AA)
    view = View.of(around(side, shift=side / 10), Look(96, 0.5, mirrored), angle)
    square = Pyramid(photo).pixels(view)
    expected = apply(view.transform_23, PLACE[None])[0]
    if mirrored:
        expected[0] = 95 - expected[0]
    np.testing.assert_allclose(centre_of(square[:, :, 0]), expected, atol=0.2)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_face_in_a_view_leads_back_to_the_photograph(mirrored: bool) -> None:
    view = View.of(around(80), Look(96, 0.5, mirrored), 20.0)
    points_52 = apply(view.transform_23, PLACE + POINTS_52)
    inside = Face((24, 24, 48, 48), points_52, 0.8)  # 80 of the 160 pixels that the square shows
    shown = inside.mirrored(96) if mirrored else inside
    best = view.best([shown, shown.shifted(30, 0), Face(shown.box, shown.points_52, 0.3)])
    assert best is not None
    back = view.in_photograph(best)
    np.testing.assert_allclose(back.box, (PLACE[0] - 40, PLACE[1] - 40, 80, 80), atol=1e-6)
    np.testing.assert_allclose(back.points_52, apply(invert(view.transform_23), points_52), atol=1e-6)
    assert view.best([shown.shifted(30, 0)]) is None, "not in the middle"


def test_a_photograph_wider_than_opencv_can_warp() -> None:
    photo = np.full((60, 40_000, 3), 40, np.uint8)
    photo[20:40, 39_900:39_920] = 240
    face = Face((39_890, 10, 40, 40), np.zeros((5, 2)), 0.9)
    square = Pyramid(photo).pixels(View.of(face, Look(80, 0.5)))
    np.testing.assert_allclose(centre_of(square[:, :, 0]), [39.5, 39.5], atol=0.6)


def test_an_equalised_view_has_the_brightness_and_contrast_of_a_well_lit_face() -> None:
    generator = np.random.default_rng(0)
    dark = generator.normal(20, 5, (120, 120, 3)).clip(0, 255).astype(np.uint8)
    middle = equalised(dark)[20:-20, 20:-20].mean(axis=2)
    assert middle.mean() == pytest.approx(GREY, abs=3)
    assert middle.std() > 4 * dark.mean(axis=2).std()
    bright = np.repeat(generator.integers(0, 256, (120, 120, 1), np.uint8), 3, axis=2)
    assert equalised(bright)[20:-20, 20:-20].std() == pytest.approx(bright.std(), rel=0.05)
