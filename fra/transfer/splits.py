"""The rows of a task: read from the manifest, split by subject, and reduced to few labels."""

from __future__ import annotations

import logging
from collections.abc import Set
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.files import read_parquet
from fra.validation.verdict import read_usable_rows

logger = logging.getLogger(__name__)

Index = NDArray[np.intp]


def read_manifest(path: Path, quarantined: Set[str]) -> pd.DataFrame:
    """Read the rows of a manifest whose images are in shards and not quarantined.

    Args:
        path: The manifest (parquet).
        quarantined: Keys of quarantined images.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: A split has no image, or a person is in two splits.
    """
    frame = read_usable_rows(path, quarantined)
    for split in ("train", "val", "test"):
        if not (frame["split"] == split).any():
            raise ValueError(f"{path}: no image in split {split!r}; transfer needs train, val and test")
    splits = frame.groupby(people(frame))["split"].nunique()
    if (splits > 1).any():
        raise ValueError(
            f"{path}: person {splits.idxmax()!r} is in {splits.max()} splits; splits must not share people"
        )
    return frame


def read_pair_images(
    path: Path, pairs: pd.DataFrame, quarantined: Set[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the rows of a manifest whose images occur in given pairs, of any split.

    Pairs with a quarantined image are left out, and their number is logged.

    Args:
        path: The manifest (parquet).
        pairs: Columns `fold`, `key`, `other` and `same`, see `fra.transfer.verification.read_pairs`.
        quarantined: Keys of quarantined images.

    Returns:
        The rows, and the pairs of usable images.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: An image of a pair is not in the manifest, or a fold has no usable pair of either kind.
    """
    frame = read_usable_rows(path, quarantined)
    keys = pd.concat([pairs["key"], pairs["other"]])
    missing = keys[~keys.isin(read_parquet(path, ["key"])["key"])]
    if len(missing):
        raise ValueError(
            f"{path}: image {missing.iloc[0]!r} of the pairs is missing (missing in all: {missing.nunique()})"
        )
    usable = pairs[pairs["key"].isin(frame["key"]) & pairs["other"].isin(frame["key"])]
    if len(usable) < len(pairs):
        left_out = keys[~keys.isin(frame["key"])]
        logger.warning(
            "verification: %s of %s pairs are left out, as %s of their images are quarantined (for example %s)",
            *(f"{len(pairs) - len(usable):,}", f"{len(pairs):,}", left_out.nunique(), left_out.iloc[0]),
        )
    kinds = ["fold", "same"]
    if len(usable.groupby(kinds)) < len(pairs.groupby(kinds)):
        raise ValueError(
            f"{path}: a fold has no pair left whose images are both usable: see the quarantine list"
        )
    chosen = frame["key"].isin(pd.concat([usable["key"], usable["other"]]))
    return frame[chosen].reset_index(drop=True), usable.reset_index(drop=True)


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
