"""The rows of a manifest that a task uses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fra.files import read_parquet
from fra.transfer.splits import people


def read_manifest(path: Path, quarantined: frozenset[str] = frozenset()) -> pd.DataFrame:
    """The rows of a manifest whose images are in shards, less those of the keys `quarantined`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: train, val or test has no image, or a person is in two of them.
    """
    frame = _sharded(path, quarantined)
    for split in ("train", "val", "test"):
        if not (frame["split"] == split).any():
            raise ValueError(f"{path}: no image in split {split!r}; transfer needs train, val and test")
    splits = frame.groupby(people(frame))["split"].nunique()
    if (splits > 1).any():
        raise ValueError(
            f"{path}: person {splits.idxmax()!r} is in {splits.max()} splits; people must not be shared"
        )
    return frame


def read_faces(path: Path, pairs: pd.DataFrame, quarantined: frozenset[str] = frozenset()) -> pd.DataFrame:
    """The rows of a manifest that given pairs name, in whatever split.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an image of a pair is not in the manifest.
    """
    frame = _sharded(path, quarantined)
    asked = pd.concat([pairs["key"], pairs["other"]])
    absent = asked[~asked.isin(frame["key"])]
    if len(absent):
        raise ValueError(
            f"{path}: image {absent.iloc[0]!r} of the pairs is missing, one of {absent.nunique()}"
        )
    return frame[frame["key"].isin(asked)].reset_index(drop=True)


def _sharded(path: Path, quarantined: frozenset[str]) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest; run the stages ingest and shard first")
    frame = read_parquet(path)
    return frame[frame["shard"].notna() & ~frame["key"].isin(quarantined)].reset_index(drop=True)
