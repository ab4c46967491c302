"""Drawn pairs are balanced, distinct and correctly labelled."""

from __future__ import annotations

import numpy as np
import pytest

from fra.transfer import verification


def test_pairs_are_balanced_distinct_and_correctly_labelled() -> None:
    person = np.repeat(np.array(["a", "b", "c"]), 6)
    first, second, same = verification.draw_pairs(person, limit=100, seed=0)
    assert same.sum() == 45  # all of 3 · 15
    assert (~same).sum() == 45
    assert ((person[first] == person[second]) == same).all()
    assert len({frozenset(pair) for pair in zip(first, second, strict=True)}) == 90
    assert len(verification.draw_pairs(person, limit=10, seed=0)[0]) == 20


def test_pairs_need_people_with_several_images() -> None:
    with pytest.raises(ValueError, match="several images"):
        verification.draw_pairs(np.array(["a", "b", "c"]), 10, 0)
    with pytest.raises(ValueError, match="at least two people"):
        verification.draw_pairs(np.array(["a", "a"]), 10, 0)
