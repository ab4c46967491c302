"""Builds the tables that rules are evaluated on, from a manifest and measurements: a million rows in seconds.

Columns that begin with `same_` (equal bytes or person) or `near_` (similar perceptual hash) hold the row number of the
other image, null where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data.datasets.records import SPLITS
from fra.validation.config import ValidateConfig
from fra.validation.duplicates import conflicts, nearest, row_to_keep
from fra.validation.image_stats import HASH_WORDS
from fra.validation.manifest import REQUIRED, Manifest
from fra.validation.measure import Measures

NO_FACE = "no face"
"""How the manifest's `error` begins for a photograph without a face to crop (see `fra.faces.select.explain`)."""
HELD_OUT = len(SPLITS)
"""The side number of other data sets' test images in `duplicates.nearest`, after those of the splits."""


@dataclass(frozen=True)
class HeldOutImages:
    """Test images of other data sets.

    Attributes:
        sha256: The SHA-256 of each file (N,).
        hashes: Their perceptual hashes (N, 4).
        sources: Their names.
    """

    sha256: NDArray[np.object_]
    hashes: NDArray[np.uint64]
    sources: list[str]


NO_IMAGES = HeldOutImages(np.empty(0, object), np.empty((0, HASH_WORDS), np.uint64), [])


def concatenate(others: Sequence[HeldOutImages]) -> HeldOutImages:
    """Returns the images of several data sets as one."""
    parts = [NO_IMAGES, *others]
    return HeldOutImages(
        np.concatenate([part.sha256 for part in parts]),
        np.concatenate([part.hashes for part in parts]),
        [source for part in parts for source in part.sources],
    )


def nullable(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns row numbers as floats, with NaN for -1."""
    return np.where(rows >= 0, rows, np.nan).astype(np.float64)


def columns(manifest: Manifest) -> pd.DataFrame:
    """Returns one row per required column and label: source (the column's name), present."""
    names = [*REQUIRED, *manifest.labels]
    return pd.DataFrame({"source": names, "present": [float(name not in manifest.missing) for name in names]})


def images(
    manifest: Manifest, measured: Measures, config: ValidateConfig, others: HeldOutImages
) -> pd.DataFrame:
    """Returns one row per image: the manifest, the measurements, and values derived from both.

    The key is appended to `source` where one file contains several images (a tar, a photograph of a group).
    """
    table = pd.concat([manifest.table, measured.images], axis=1)
    shared = table["source"].duplicated(keep=False)
    table["source"] = table["source"].mask(shared, table["source"] + ": " + table["key"])
    without_face = table["error"].str.startswith(NO_FACE).fillna(False).astype(bool)
    sharded = table["shard"].notna()
    sides = table[["width", "height"]].astype("float32").where(sharded)
    longest, shortest = sides.max(axis=1), sides.min(axis=1)
    sha256 = table["sha256"].where(sharded)
    side_N = sides_of(table["split"])
    most_common = table["landmark_count"].mode()
    table = table.assign(
        error=table["error"].mask(without_face),
        no_face=table["error"].where(without_face),
        mode=table["mode"].where(sharded),
        bytes=table["bytes"].astype("float64"),
        shortest_side=shortest,
        longest_side=longest,
        aspect=longest / shortest.where(shortest > 0),
        index_fits=index_fits(table, sharded),
        format=table["format"].where(table["readable"] == 1),
        landmark_count_fits=(table["landmark_count"] == (most_common.iloc[0] if len(most_common) else 0))
        .astype("float32")
        .where(table["landmark_count"].notna()),
        same_person_in_other_split=nullable(in_higher_side(table["person"], side_N)),
        same_bytes_in_other_split=nullable(in_higher_side(sha256, side_N)),
        same_bytes_other_person=nullable(conflicts(sha256, table["person"], side_N)),
        same_bytes_other_label=nullable(other_label(table, sha256, side_N)),
        same_bytes=nullable(redundant(sha256, side_N)),
    )
    return table.assign(**near_duplicates(table, sha256, measured.hashes, config, others))


def photographs(manifest: Manifest) -> int:
    """Returns the number of photographs that the images were cropped from; 0 for a set that was not searched for faces.

    Several faces of one photograph have one source and one hash of the photograph, and keys that differ in their end.
    """
    if "photo.sha256" not in manifest.arrow.column_names:
        return 0
    rows = manifest.arrow.select(["key", "source", "photo.sha256"]).to_pandas()
    rows["key"] = rows["key"].str.replace(r"_face\d+$", "", regex=True)
    return len(rows.drop_duplicates())


def index_fits(table: pd.DataFrame, sharded: pd.Series) -> pd.Series:
    """Returns 1 where `index` is correct, else 0: the position among the split's sharded rows, or -1 for other rows."""
    place = sharded.groupby(table["split"].fillna("?"), sort=False).cumsum() - 1
    return (table["index"] == place.where(sharded, -1)).fillna(False).astype("float32")


def sides_of(split: pd.Series) -> NDArray[np.int64]:
    """Returns the number of each split: 0 for train, 1 for val, 2 for test, -1 for any other value.

    Of duplicates the image in the higher split is kept, so that published test sets stay complete.
    """
    sides = split.map({name: side for side, name in enumerate(SPLITS)}).fillna(-1)
    return np.asarray(sides, dtype=np.int64)


def redundant(group: pd.Series, side_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns, for each row that repeats a value, the row to keep instead; -1 for the row to keep itself."""
    kept = row_to_keep(group, side_N)
    return np.where(kept == np.arange(len(kept)), -1, kept)


def in_higher_side(group: pd.Series, side_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns, for each row, a row with the same value in the highest split, -1 where that is its own split."""
    kept = row_to_keep(group, side_N)
    return np.where(side_N[kept] > side_N, kept, -1).astype(np.int64)


def other_label(table: pd.DataFrame, sha256: pd.Series, side_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns, for each row, a row of the same bytes with another value of any label, or -1 (see `conflicts`)."""
    found = np.full(len(table), -1, np.int64)
    for name in table.columns:
        if name.startswith("label."):
            found = np.maximum(found, conflicts(sha256, table[name], side_N))
    return found


def near_duplicates(
    table: pd.DataFrame,
    sha256: pd.Series,
    hashes: NDArray[np.uint64],
    config: ValidateConfig,
    others: HeldOutImages,
) -> dict[str, NDArray[np.float64]]:
    """Returns row numbers of near duplicates, NaN for none.

    Exact duplicates within the set are covered by their own rules; blank images have no meaningful hash.

    Returns:
        near_other: A near duplicate further up in the same split; set on the row to remove.
        near_held_out: A near duplicate in a later split (train < val < test); set on the row to remove.
        near_test_of_other_set: The position in `others` of an equal or similar test image.
    """
    side_N = sides_of(table["split"])
    seen = (table["readable"] == 1) & (table["contrast"] >= config.min_contrast)
    rows = np.flatnonzero((seen & ~sha256.duplicated()).to_numpy() & (side_N >= 0))
    side_R = side_N[rows]
    hash_M4 = np.concatenate([hashes[rows], others.hashes])
    side_M = np.concatenate([side_R, np.full(len(others.hashes), HELD_OUT)])
    near_RS = nearest(hash_M4, side_M, HELD_OUT + 1, config.near_duplicate_bits)[: len(rows)]
    names = np.concatenate([rows, np.arange(len(others.hashes))])
    near_other, near_held_out = np.full(len(table), np.nan), np.full(len(table), np.nan)
    for side in range(HELD_OUT):
        near_R = near_RS[:, side]
        mine = (near_R >= 0) & (near_R < np.arange(len(rows))) & (side_R == side)
        later = (near_R >= 0) & (side_R < side)
        near_other[rows[mine]] = names[near_R[mine]]
        near_held_out[rows[later]] = names[near_R[later]]
    place = pd.Series(np.arange(len(others.sha256)), index=others.sha256)
    near_test = sha256.map(place[~place.index.duplicated()]).to_numpy(dtype=float, na_value=np.nan, copy=True)
    near_R = near_RS[:, HELD_OUT]
    found = (near_R >= 0) & np.isnan(near_test[rows])
    near_test[rows[found]] = names[near_R[found]]
    return {"near_other": near_other, "near_held_out": near_held_out, "near_test_of_other_set": near_test}


def labels(table: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per label (classes, unlabelled) and one per class (share of the labelled images, in_train)."""
    rows = []
    for name in [column for column in table.columns if column.startswith("label.")]:
        known = table[name].dropna()
        rows.append(
            {
                "source": name,
                "classes": float(known.nunique()) if len(known) else None,
                "unlabelled": 1 - len(known) / max(len(table), 1),
            }
        )
        counts = known.value_counts().sort_index()
        trained = set(known[table.loc[known.index, "split"] == "train"])
        has_train = bool((table["split"] == "train").any())
        for value, count in counts.items():
            rows.append(
                {
                    "source": f"{name} = {value}",
                    "share": count / len(known),
                    "in_train": float(value in trained) if has_train else None,
                }
            )
    return pd.DataFrame(rows, columns=["source", "classes", "unlabelled", "share", "in_train"])


def files(measured: Measures) -> pd.DataFrame:
    """Returns one row per shard and beton."""
    table = measured.files
    wanted = (table["kind"] == "shard") & table["listed"].astype(bool)
    return table.assign(
        present=table["present"].astype(float),
        listed=table["listed"].astype(float),
        indexed=table["images_indexed"].notna().astype(float).where(wanted),
    )


def batches(facts: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per view of the first training batch: its measurements and the name of its image."""
    train = table[(table["split"] == "train") & table["shard"].notna()]
    source = train.set_index("index")["source"]
    inside = (facts["low"] >= -1e-3) & (facts["high"] <= 1 + 1e-3) & facts["finite"]
    named = [
        f"{source.get(index, index)} (view {view})"
        for index, view in zip(facts["index"], facts["view"], strict=True)
    ]
    flags = {"finite": facts["finite"].astype(float), "in_range": inside.astype(float)}
    return facts.assign(source=named, **flags).rename(columns={"deviation": "batch_deviation"})
