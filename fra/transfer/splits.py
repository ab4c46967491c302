"""Who is learnt from and who is asked: people-disjoint validation, few-label subsets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Index = NDArray[np.intp]


def people(frame: pd.DataFrame) -> pd.Series:
    """The person of each row; a row without one is a person of its own (named by its key)."""
    return frame["person"].astype("object").where(frame["person"].notna(), frame["key"])


def redraw_validation(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The manifest with the people of `train` and `val` drawn anew into the two; `test` stays as it is.

    As many people validate as before. The deviation over seeds then says how much the choice of labelled
    people matters, also for heads whose fit has no chance in it.
    """
    who = people(frame)
    labelled = frame["split"].isin(["train", "val"])
    count = who[frame["split"] == "val"].nunique()
    names = np.sort(who[labelled].unique().astype(str))
    chosen = np.random.default_rng([seed, 1]).choice(names, size=count, replace=False)
    split = frame["split"].where(~labelled, np.where(who.isin(chosen), "val", "train"))
    return frame.assign(split=split)


def strata(y_NO: NDArray[np.floating]) -> NDArray[np.intp]:
    """A number for each combination of outputs (unknown ones count as a value): (N,).

    Where hardly two rows agree (coordinates), all rows are one stratum.
    """
    combinations_, number_N = np.unique(np.nan_to_num(y_NO, nan=-1.0), axis=0, return_inverse=True)
    return number_N if len(combinations_) < len(y_NO) / 2 else np.zeros(len(y_NO), dtype=np.intp)


def stratified_order(strata_N: NDArray[np.generic], seed: int) -> Index:
    """An order of the rows whose every prefix holds the strata in (nearly) their whole proportions: (N,).

    So the first n rows are a stratified subset, and subsets of growing n contain one another.
    """
    generator = np.random.default_rng([seed, 2])
    place = np.empty(len(strata_N))
    for stratum in np.unique(strata_N):
        rows = np.flatnonzero(strata_N == stratum)
        place[generator.permutation(rows)] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return np.argsort(place, kind="stable")


def few_labels(strata_N: NDArray[np.generic], fraction: float, seed: int) -> Index:
    """Rows of a stratified subset of `fraction` of all (at least one), sorted; nested over fractions."""
    count = max(1, round(fraction * len(strata_N)))
    return np.sort(stratified_order(strata_N, seed)[:count])
