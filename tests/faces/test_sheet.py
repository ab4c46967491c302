from __future__ import annotations

import numpy as np

from fra.faces.sheet import sheets


def test_every_square_has_a_place_of_its_own_on_a_sheet() -> None:
    sides = np.random.default_rng(0).choice([64, 112, 160, 256], 60).tolist()
    packed = sheets(sides, 640)
    assert sorted(number for sheet in packed for number, _, _ in sheet.places) == list(range(60))
    for sheet in packed:
        covered_HW = np.zeros((sheet.height, sheet.width), int)
        for number, left, top in sheet.places:
            covered_HW[top : top + sides[number], left : left + sides[number]] += 1
            assert left + sides[number] <= sheet.width <= 640
            assert top + sides[number] <= sheet.height <= 640
        assert covered_HW.max() == 1
    assert len(packed) * 640**2 < 1.5 * sum(side**2 for side in sides)


def test_a_point_is_in_one_square_or_between_them() -> None:
    (sheet,) = sheets([64, 112], 640)
    assert sheet.at(111.5, 100.0) == (1, 0, 0)
    assert sheet.at(112.0, 63.0) == (0, 112, 0)
    assert sheet.at(112.0, 64.0) is None


def test_no_square_needs_no_sheet() -> None:
    assert sheets([], 640) == []
