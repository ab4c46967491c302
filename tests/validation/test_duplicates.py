"""Near duplicates are the same as those found by comparing all pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fra.validation.duplicates import conflicts, first_conflict, nearest, row_to_keep


def bits(hash_N4: np.ndarray) -> np.ndarray:
    return np.unpackbits(hash_N4.view(np.uint8), axis=1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 16))
@example(3078, 0)  # equal hashes
def test_nearest_equals_all_pairs(seed: int, limit: int) -> None:
    random = np.random.default_rng(seed)
    hash_N4 = random.integers(0, 2**64, (12, 4), dtype=np.uint64).repeat(5, axis=0)
    flat = bits(hash_N4)
    for row in flat:
        row[random.choice(256, random.integers(0, 14), replace=False)] ^= 1
    hash_N4 = np.packbits(flat, axis=1).view(np.uint64)
    side_N = random.integers(0, 3, len(hash_N4))
    found_NS = nearest(hash_N4, side_N, 3, limit)
    apart = (flat[:, None] != flat[None]).sum(axis=2)
    np.fill_diagonal(apart, 999)
    for side in range(3):
        expected = ((apart <= limit) & (side_N == side)[None]).any(axis=1)
        np.testing.assert_array_equal(found_NS[:, side] >= 0, expected)
        rows = np.flatnonzero(expected)
        assert (apart[rows, found_NS[rows, side]] <= limit).all()
        assert (side_N[found_NS[rows, side]] == side).all()


def test_no_hashes_give_no_rows() -> None:
    assert nearest(np.empty((0, 4), np.uint64), np.empty(0, np.int64), 3, 4).shape == (0, 3)


def test_the_first_row_of_the_highest_side_is_kept() -> None:
    group = pd.Series(["a", "b", "a", None, "a", None, "b"])
    side_N = np.array([0, 1, 2, 0, 2, 1, 1])
    np.testing.assert_array_equal(row_to_keep(group, side_N), [2, 1, 2, 3, 2, 5, 1])


def test_conflicts_with_lower_sides_are_left_to_them() -> None:
    group = pd.Series(["a", "a", "b", "b", "c"])
    value = pd.Series([0, 1, 0, 1, 0])
    np.testing.assert_array_equal(conflicts(group, value, np.array([0, 2, 1, 1, 0])), [1, -1, 3, 2, -1])


def test_of_near_duplicates_the_lowest_row_is_named() -> None:
    hash_N4 = np.array([[0b11, 0, 0, 0], [0b01, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.uint64)
    np.testing.assert_array_equal(nearest(hash_N4, np.zeros(4, np.int64), 1, 1)[:, 0], [1, 0, 1, 1])


def test_first_conflict() -> None:
    group = pd.Series(["a", "a", "b", "b", None, "a", "b"])
    value = pd.Series(["x", "x", "x", None, "y", "y", "x"])
    np.testing.assert_array_equal(first_conflict(group, value), [5, 5, -1, -1, -1, 0, -1])
    assert (first_conflict(pd.Series([None, None]), pd.Series(["x", "y"])) == -1).all()
