"""The rows of a manifest that a task uses."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import pandas as pd

from fra.transfer.splits import people
from fra.validation.verdict import read_usable_rows


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


def read_pair_images(path: Path, pairs: pd.DataFrame, quarantined: Set[str]) -> pd.DataFrame:
    """Read the rows of a manifest whose images occur in given pairs, of any split.

    Args:
        path: The manifest (parquet).
        pairs: Columns `key` and `other`, see `fra.transfer.verification.read_pairs`.
        quarantined: Keys of quarantined images.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: An image of a pair is not in the manifest.
    """
    frame = read_usable_rows(path, quarantined)
    keys = pd.concat([pairs["key"], pairs["other"]])
    missing = keys[~keys.isin(frame["key"])]
    if len(missing):
        raise ValueError(
            f"{path}: image {missing.iloc[0]!r} of the pairs is missing (missing in all: {missing.nunique()})"
        )
    return frame[frame["key"].isin(keys)].reset_index(drop=True)
