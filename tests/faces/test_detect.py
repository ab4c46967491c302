from __future__ import annotations

import numpy as np

from fra.faces.detect import Face, merge, same, shrink


def face(left: float, top: float, side: float, score: float) -> Face:
    return Face((left, top, side, side), np.zeros((5, 2)), score)


def test_of_the_same_face_the_most_certain_detection_is_kept() -> None:
    first, second, other = face(10, 10, 100, 0.7), face(15, 12, 100, 0.9), face(300, 10, 100, 0.65)
    assert merge([first, second, other]) == [second, other]


def test_a_part_of_a_large_face_is_not_another_face() -> None:
    large, nose = face(0, 0, 400, 0.9), face(180, 180, 60, 0.7)
    assert merge([nose, large]) == [large]


def test_a_small_detection_inside_a_large_one_can_be_kept() -> None:
    large, small = face(0, 0, 400, 0.9), face(180, 180, 60, 0.7)
    assert merge([small, large], max_inside=np.inf) == [large, small]
    twin = face(2, 1, 400, 0.8)
    assert merge([small, large, twin], max_inside=np.inf) == [large, small]
    np.testing.assert_array_equal(same([small, twin], [large]), [[True], [True]])
    np.testing.assert_array_equal(same([small, twin], [large], np.inf), [[False], [True]])
    assert same([small], []).shape == (1, 0)


def test_faces_side_by_side_are_both_kept() -> None:
    assert len(merge([face(0, 0, 100, 0.9), face(85, 0, 100, 0.8)])) == 2


def test_no_detection_gives_no_face() -> None:
    assert merge([]) == []


def test_a_photograph_is_shrunk_to_its_longer_side_and_never_enlarged() -> None:
    small, factor = shrink(np.zeros((300, 1280, 3), np.uint8), 640)
    assert small.shape == (150, 640, 3)
    assert factor == 2
    unchanged, factor = shrink(np.zeros((30, 40, 3), np.uint8), 640)
    assert unchanged.shape == (30, 40, 3)
    assert factor == 1


def test_a_face_is_scaled_and_shifted_with_its_points() -> None:
    moved = Face((1, 2, 3, 4), np.ones((5, 2)), 0.5).scaled(2).shifted(10, 20)
    assert moved.box == (12, 24, 6, 8)
    np.testing.assert_array_equal(moved.points_52, np.tile([12, 22], (5, 1)))
    np.testing.assert_array_equal(moved.centre, [15, 28])


def test_a_mirrored_face_keeps_the_order_of_its_points() -> None:
    points_52 = np.array([[10.0, 5], [20, 6], [16, 12], [11, 20], [19, 21]])
    mirrored = Face((8, 2, 14, 22), points_52, 0.5).mirrored(100)
    assert mirrored.box == (78, 2, 14, 22)
    np.testing.assert_array_equal(mirrored.points_52, [[80, 6], [90, 5], [84, 12], [81, 21], [89, 20]])
    np.testing.assert_array_equal(mirrored.mirrored(100).points_52, points_52)
