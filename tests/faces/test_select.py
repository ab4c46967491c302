from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from support.scenes import orl_photographs

from fra.bench.scenes import background
from fra.faces.select import find
from fra.faces.yunet import YuNet


@pytest.mark.parametrize("tall", [False, True])
def test_a_panorama_is_searched_in_parts(tall: bool) -> None:
    """Each face is reported once, in pixels of the whole, though the whole picture shows it too small."""
    generator = np.random.default_rng(1)
    panorama = np.tile(background(500, 500, generator), (1, 12, 1))
    corners = [(150, 200), (900, 30), (2900, 300), (5900, 380)]
    for corner, face in zip(corners, islice(orl_photographs(), 0, None, 60), strict=False):
        panorama[corner[1] : corner[1] + 112, corner[0] : corner[0] + 92] = face
    if tall:
        parts = [panorama[:, start : start + 500] for start in range(0, 6000, 500)]
        panorama = np.concatenate(parts)
        corners = [(x % 500, y + x // 500 * 500) for x, y in corners]
    found = find(panorama, YuNet(0.6))
    assert len(found) == len(corners)
    for x, y in corners:
        assert sum(np.abs(one.face.centre - [x + 46, y + 60]).max() < 15 for one in found) == 1
