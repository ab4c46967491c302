"""Who is learnt from and who is asked: people-disjoint validation, few-label subsets, pairs of faces."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

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


def draw_pairs(
    person_N: NDArray[np.generic], limit: int, seed: int
) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Pairs of rows, half of them of one person: (first_P, second_P, same_P).

    All pairs of one person (at most `limit`, drawn), and as many drawn pairs of two people, none twice.

    Raises:
        ValueError: no person has two images, or there is one person only.
    """
    generator = np.random.default_rng([seed, 3])
    _, person_N = np.unique(person_N, return_inverse=True)
    rows_of = [np.flatnonzero(person_N == p) for p in range(person_N.max() + 1)]
    same = np.array([pair for rows in rows_of for pair in combinations(rows, 2)], dtype=np.intp).reshape(
        -1, 2
    )
    different = (len(person_N) * (len(person_N) - 1)) // 2 - len(same)
    if not len(same) or not different:
        raise ValueError(
            f"verification needs people with several images and at least two people; "
            f"here {len(rows_of)} people have {len(person_N)} images"
        )
    count = min(limit, len(same), different)
    same = same[generator.choice(len(same), count, replace=False)]
    others: dict[tuple[int, int], None] = {}  # ordered and without doubles
    while len(others) < count:
        for a, b in generator.integers(len(person_N), size=(2 * count, 2)):
            if person_N[a] != person_N[b] and len(others) < count:
                others[(int(min(a, b)), int(max(a, b)))] = None
    pairs = np.concatenate([same, np.array(list(others), dtype=np.intp)])
    return pairs[:, 0], pairs[:, 1], np.arange(2 * count) < count


def read_pairs(path: Path) -> pd.DataFrame:
    """LFW's `pairs.txt`: columns fold, key, other, same (bool); keys are "Name/Name_0001".

    The first line gives the folds and the pairs of either kind in each (folds 1 where it gives one number).
    Then each fold has its matched lines (name, i, j) and its mismatched ones (name, i, other name, j),
    tab-separated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not as described, or lines are missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; transfer.pairs_file is LFW's pairs.txt")
    header, *lines = path.read_text(encoding="utf-8").strip().split("\n")
    numbers = [int(number) for number in header.split()]
    folds, count = numbers if len(numbers) == 2 else (1, numbers[0])
    if len(lines) != 2 * folds * count:
        raise ValueError(
            f"{path}: {folds} folds of twice {count} pairs were announced, {len(lines)} lines found"
        )
    rows = []
    for place, line in enumerate(lines):
        fields = line.split("\t")
        same = place % (2 * count) < count
        if len(fields) != (3 if same else 4):
            raise ValueError(f"{path}, line {place + 2}: {line!r} is no {'' if same else 'mis'}matched pair")
        name, i, other, j = (fields[0], fields[1], fields[0], fields[2]) if same else fields
        keys = (f"{who}/{who}_{int(number):04d}" for who, number in ((name, i), (other, j)))
        rows.append((place // (2 * count), *keys, same))
    return pd.DataFrame(rows, columns=["fold", "key", "other", "same"])
