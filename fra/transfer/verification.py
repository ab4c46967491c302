"""Verification: pairs of faces, drawn or given, compared by the cosine of their features."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.transfer.heads import Array, unit
from fra.transfer.metrics import best_threshold
from fra.transfer.splits import Index, people


def compare(frame: pd.DataFrame, x_ND: Array, limit: int, seed: int) -> pd.DataFrame:
    """Drawn pairs of test people by the cosine of their features less the training mean; nothing is trained.

    The threshold of `prediction` is the best one on pairs of validation people.
    """
    unit_ND = unit(x_ND - x_ND[frame["split"] == "train"].mean(axis=0))
    scored = {}
    for name in ("val", "test"):
        rows = np.flatnonzero(frame["split"] == name)
        first, second, same = draw_pairs(people(frame).to_numpy(dtype=str)[rows], limit, seed)
        scored[name] = _pair_rows(frame, unit_ND, rows[first], rows[second], same)
    threshold = best_threshold(scored["val"]["score"].to_numpy(), scored["val"]["truth"].to_numpy())
    return scored["test"].assign(prediction=(scored["test"]["score"] >= threshold).astype(float))


def compare_folds(frame: pd.DataFrame, x_ND: Array, pairs: pd.DataFrame) -> pd.DataFrame:
    """LFW's protocol: for each fold, mean feature and threshold come from the pairs of all the others."""
    place = pd.Index(frame["key"])
    first_P, second_P = (place.get_indexer(pairs[column]) for column in ("key", "other"))
    fold_P, same_P = pairs["fold"].to_numpy(), pairs["same"].to_numpy()
    parts = []
    for fold in np.unique(fold_P):
        held = fold_P == fold
        unit_ND = unit(x_ND - x_ND[np.union1d(first_P[~held], second_P[~held])].mean(axis=0))
        learnt, asked = (
            _pair_rows(frame, unit_ND, first_P[part], second_P[part], same_P[part]) for part in (~held, held)
        )
        threshold = best_threshold(learnt["score"].to_numpy(), learnt["truth"].to_numpy())
        parts.append(asked.assign(prediction=(asked["score"] >= threshold).astype(float), fold=fold))
    return pd.concat(parts, ignore_index=True)


def _pair_rows(
    frame: pd.DataFrame, unit_ND: Array, first_P: Array, second_P: Array, same_P: Array
) -> pd.DataFrame:
    keys, persons = frame["key"].to_numpy(dtype=object), people(frame).to_numpy(dtype=object)
    return pd.DataFrame(
        {
            "key": keys[first_P],
            "other": keys[second_P],
            "person": persons[first_P],
            "other_person": persons[second_P],
            "output": "same",
            "truth": same_P.astype(float),
            "score": np.sum(unit_ND[first_P] * unit_ND[second_P], axis=1).astype(float),
        }
    )


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
    try:
        header, *lines = path.read_text(encoding="utf-8").strip().split("\n")
        *given, count = [int(number) for number in header.split()]
        (folds,) = given or [1]
    except ValueError as error:
        raise ValueError(f"{path}, line 1: expected the numbers of folds and of pairs ({error})") from None
    if len(lines) != 2 * folds * count:
        raise ValueError(
            f"{path}: {folds} folds of twice {count} pairs were announced, {len(lines)} lines found"
        )
    rows = []
    for place, line in enumerate(lines):
        fields = line.split("\t")
        same = place % (2 * count) < count
        if len(fields) != (3 if same else 4) or not all(field.isdecimal() for field in fields[1 :: 2 - same]):
            raise ValueError(f"{path}, line {place + 2}: {line!r} is no {'' if same else 'mis'}matched pair")
        name, i, other, j = (fields[0], fields[1], fields[0], fields[2]) if same else fields
        keys = (f"{who}/{who}_{int(number):04d}" for who, number in ((name, i), (other, j)))
        rows.append((place // (2 * count), *keys, same))
    return pd.DataFrame(rows, columns=["fold", "key", "other", "same"])
