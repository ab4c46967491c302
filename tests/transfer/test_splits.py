"""No person is in two splits; few-label subsets are stratified and nested."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from fra.transfer import splits


def faces(people: int = 20, images: int = 5) -> pd.DataFrame:
    number = np.repeat(np.arange(people), images)
    split = np.select([number < 0.6 * people, number < 0.8 * people], ["train", "val"], "test")
    key = [f"s{p}/{i}" for p, i in zip(number, np.arange(people * images), strict=True)]
    return pd.DataFrame({"key": key, "split": split, "person": [f"s{p}" for p in number]})


def test_redrawn_validation_shares_no_person_and_keeps_test() -> None:
    frame = faces()
    draws = [splits.redraw_validation(frame, seed) for seed in range(4)]
    for drawn in draws:
        assert drawn.groupby("person")["split"].nunique().max() == 1
        assert (drawn["split"] == "test").equals(frame["split"] == "test")
        assert drawn.loc[drawn["split"] == "val", "person"].nunique() == 4
    assert len({tuple(drawn["split"]) for drawn in draws}) == 4
    assert draws[0].equals(splits.redraw_validation(frame, 0))


def test_images_of_unknown_people_are_one_person_each() -> None:
    frame = faces()
    frame.loc[:4, "person"] = None
    assert splits.people(frame).nunique() == 19 + 5
    assert splits.redraw_validation(frame, 0)["split"].isin(["train", "val", "test"]).all()


def test_few_labels_are_nested_and_stratified() -> None:
    strata = np.repeat([0, 1, 2], [500, 300, 200])
    subsets = [set(splits.few_labels(strata, fraction, seed=5)) for fraction in (0.01, 0.02, 0.05, 0.1, 1.0)]
    for smaller, larger in pairwise(subsets):
        assert smaller < larger
    for fraction, subset in zip((0.01, 0.02, 0.05, 0.1, 1.0), subsets, strict=True):
        assert len(subset) == 1000 * fraction
        counts = np.bincount(strata[list(subset)], minlength=3)
        assert np.abs(counts - np.array([500, 300, 200]) * fraction).max() <= 1
    assert subsets[1] != set(splits.few_labels(strata, 0.02, seed=6))


def test_strata_are_combinations_of_labels_but_coordinates_have_none() -> None:
    labels = np.array([[0, 1], [0, 1], [1, 1], [0, np.nan], [0, np.nan], [0, 1]] * 3)
    assert len(np.unique(splits.strata(labels))) == 3
    assert len(np.unique(splits.strata(np.random.default_rng(0).random((50, 136))))) == 1
