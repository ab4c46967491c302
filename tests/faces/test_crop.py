from __future__ import annotations

import cv2
import numpy as np
import pytest

from fra.faces.crop import TEMPLATE_52, apply, box_transform, crop, crop_transform, invert, similarity
from fra.faces.detect import Face

POINTS_52 = np.array([[40.0, 50.0], [80.0, 48.0], [61.0, 70.0], [45.0, 92.0], [78.0, 90.0]])
FACE = Face((30.0, 20.0, 60.0, 90.0), POINTS_52, 0.9)


def turn(points_P2: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn_22 = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points_P2 @ turn_22.T + shift


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"), [(0, 1, (0, 0)), (33, 0.4, (9, -70)), (-170, 3, (500, 2))]
)
def test_similarity_recovers_rotation_scale_and_shift(
    degrees: float, scale: float, shift: tuple[float, float]
) -> None:
    moved = turn(POINTS_52, degrees, scale, shift)
    np.testing.assert_allclose(apply(similarity(POINTS_52, moved), POINTS_52), moved, atol=1e-9)


def test_similarity_never_mirrors() -> None:
    mirrored = POINTS_52 * [-1, 1]
    assert np.linalg.det(similarity(POINTS_52, mirrored)[:, :2]) > 0


def test_a_box_crop_is_the_square_around_the_centre_of_the_box() -> None:
    transform = box_transform((30, 20, 60, 90), size=180, margin=0.5)  # 90 pixels and 45 on each side
    np.testing.assert_allclose(apply(transform, np.array([[60.0, 65.0]])), [[90, 90]])
    corners = np.array([[-30.0, -25.0], [150.0, 155.0]])
    np.testing.assert_allclose(apply(transform, corners), [[0, 0], [180, 180]])


@pytest.mark.parametrize("size", [112, 224])
def test_an_aligned_face_without_margin_lies_on_the_template(size: int) -> None:
    turned = Face((0, 0, 1, 1), turn(TEMPLATE_52, 25, 2.5, (300, 40)), 0.9)
    transform = crop_transform(turned, "aligned", size, margin=0.0)
    np.testing.assert_allclose(apply(transform, turned.points_52), TEMPLATE_52 * size / 112, atol=1e-6)


def test_a_margin_leaves_the_aligned_face_in_the_middle() -> None:
    face = Face((0, 0, 1, 1), TEMPLATE_52, 0.9)
    corners = np.array([[0.0, 0.0], [112.0, 112.0]])
    expected = [[100 / 3] * 2, [500 / 3] * 2]
    np.testing.assert_allclose(apply(crop_transform(face, "aligned", 200, 0.25), corners), expected)


@pytest.mark.parametrize("kind", ["box", "aligned"])
def test_the_inverse_leads_back_to_the_photograph(kind: str) -> None:
    transform = crop_transform(FACE, kind, 112, 0.2)  # type: ignore[arg-type]
    np.testing.assert_allclose(apply(invert(transform), apply(transform, POINTS_52)), POINTS_52, atol=1e-9)


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.49, 0.51, 1.0, 2.5])
def test_pixels_land_where_the_transform_says(scale: float) -> None:
    """A bright disc drawn in the photograph is found at its transformed centre, whatever the scale."""
    photo = np.full((900, 1200, 3), 40, np.uint8)
    cv2.circle(photo, (701, 411), 24, (240, 240, 240), -1, cv2.LINE_AA)
    transform = np.array([[scale, 0, 100 - scale * 690], [0, scale, 100 - scale * 400]])
    grey = crop(photo, transform, 200)[:, :, 0].astype(float) - 40
    x, y = np.meshgrid(np.arange(200), np.arange(200))
    found = np.array([(grey * x).sum(), (grey * y).sum()]) / grey.sum()
    np.testing.assert_allclose(found, apply(transform, np.array([[701.0, 411.0]]))[0], atol=0.12)


def test_a_large_face_is_averaged_not_sampled() -> None:
    """Stripes of one pixel become grey where the crop has an eighth of the photograph's size."""
    photo = np.zeros((800, 800, 3), np.uint8)
    photo[:, ::2] = 255
    found = crop(photo, np.array([[0.125, 0, 0], [0, 0.125, 0]]), 100)
    assert found.std() < 3
    assert abs(found.mean() - 127.5) < 3


def test_beyond_the_edge_the_edge_is_repeated() -> None:
    photo = np.full((50, 50, 3), 200, np.uint8)
    found = crop(photo, np.array([[1.0, 0, 60], [0, 1.0, 60]]), 100)
    assert (found == 200).all()
