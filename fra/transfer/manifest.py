"""The rows of a manifest that a task uses."""

from __future__ import annotations

import logging
from collections.abc import Set
from pathlib import Path

import pandas as pd

from fra.files import read_parquet
from fra.transfer.splits import people
from fra.validation.verdict import read_usable_rows

logger = logging.getLogger(__name__)


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
