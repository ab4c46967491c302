"""Training and validation subjects, and few-label subsets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Index = NDArray[np.intp]


def people(frame: pd.DataFrame) -> pd.Series:
    """Return the person of each row; a row of an unknown person is its own person, named by its key."""
    return frame["person"].astype("object").where(frame["person"].notna(), frame["key"])


def redraw_validation(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the manifest with the subjects of `train` and `val` drawn again; `test` is unchanged.

    The number of validation subjects is kept. The deviation over seeds then shows how much the choice of labelled
    subjects matters, also for heads whose fit is deterministic.
    """
    person = people(frame)
    labelled = frame["split"].isin(["train", "val"])
    count = person[frame["split"] == "val"].nunique()
    names = np.sort(person[labelled].unique().astype(str))
    chosen = np.random.default_rng([seed, 1]).choice(names, size=count, replace=False)
    split = frame["split"].where(~labelled, np.where(person.isin(chosen), "val", "train"))
    return frame.assign(split=split)


def strata(y_NO: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the number of each row's combination of outputs (unknown counts as a value): (N,).

    Where hardly any two rows agree (coordinates), all rows are one stratum.
    """
    combinations, number_N = np.unique(np.nan_to_num(y_NO, nan=-1.0), axis=0, return_inverse=True)
    return number_N if len(combinations) < len(y_NO) / 2 else np.zeros(len(y_NO), dtype=np.intp)


def stratified_order(strata_N: NDArray[np.generic], seed: int) -> Index:
    """Return an order of the rows (N,) in which every prefix has nearly the proportions of all strata.

    The first n rows are therefore a stratified subset, and subsets of growing n are nested.
    """
    generator = np.random.default_rng([seed, 2])
    position = np.empty(len(strata_N))
    for stratum in np.unique(strata_N):
        rows = np.flatnonzero(strata_N == stratum)
        position[generator.permutation(rows)] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return np.argsort(position, kind="stable")


def few_labels(strata_N: NDArray[np.generic], fraction: float, seed: int) -> Index:
    """Return the sorted rows of a stratified subset of a fraction of all rows (at least one); nested over fractions."""
    count = max(1, round(fraction * len(strata_N)))
    return np.sort(stratified_order(strata_N, seed)[:count])
