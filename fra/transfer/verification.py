"""Verification: pairs of images, drawn or given, compared by the cosine of their features."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.transfer.heads import Array, unit
from fra.transfer.metrics import best_threshold
from fra.transfer.splits import Index, people


def compare_drawn_pairs(frame: pd.DataFrame, x_ND: Array, limit: int, seed: int) -> pd.DataFrame:
    """Score drawn pairs of test subjects by the cosine of their features minus the training mean.

    Nothing is trained. The threshold of `prediction` is the most accurate one on pairs of validation subjects.
    """
    unit_ND = unit(x_ND - x_ND[frame["split"] == "train"].mean(axis=0))
    scored = {}
    for name in ("val", "test"):
        rows = np.flatnonzero(frame["split"] == name)
        first, second, same = draw_pairs(people(frame).to_numpy(dtype=str)[rows], limit, seed)
        scored[name] = _pair_rows(frame, unit_ND, rows[first], rows[second], same)
    threshold = best_threshold(scored["val"]["score"].to_numpy(), scored["val"]["truth"].to_numpy())
    return scored["test"].assign(prediction=(scored["test"]["score"] >= threshold).astype(float))


def compare_given_pairs(frame: pd.DataFrame, x_ND: Array, pairs: pd.DataFrame) -> pd.DataFrame:
    """Score given pairs by LFW's protocol: mean feature and threshold of a fold come from the other folds."""
    index = pd.Index(frame["key"])
    first_P, second_P = (index.get_indexer(pairs[column]) for column in ("key", "other"))
    fold_P, same_P = pairs["fold"].to_numpy(), pairs["same"].to_numpy()
    parts = []
    for fold in np.unique(fold_P):
        test = fold_P == fold
        unit_ND = unit(x_ND - x_ND[np.union1d(first_P[~test], second_P[~test])].mean(axis=0))
        others, rows = (
            _pair_rows(frame, unit_ND, first_P[part], second_P[part], same_P[part]) for part in (~test, test)
        )
        threshold = best_threshold(others["score"].to_numpy(), others["truth"].to_numpy())
        parts.append(rows.assign(prediction=(rows["score"] >= threshold).astype(float), fold=fold))
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
    """Draw distinct pairs of rows, half of them of one person.

    All pairs of one person (at most `limit`, drawn at random), and the same number of random pairs of two people.

    Returns:
        first_P, second_P (row numbers) and same_P.

    Raises:
        ValueError: No person has two images, or there is only one person.
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
    others: dict[tuple[int, int], None] = {}  # ordered, without duplicates
    while len(others) < count:
        for a, b in generator.integers(len(person_N), size=(2 * count, 2)):
            if person_N[a] != person_N[b] and len(others) < count:
                others[(int(min(a, b)), int(max(a, b)))] = None
    pairs = np.concatenate([same, np.array(list(others), dtype=np.intp)])
    return pairs[:, 0], pairs[:, 1], np.arange(2 * count) < count


def read_pairs(path: Path) -> pd.DataFrame:
    """Read LFW's `pairs.txt`.

    The first line has the number of folds and of pairs of either kind in each (or only the latter, for one fold). Each
    fold then has its matched lines (name, i, j) and its mismatched lines (name, i, other name, j), tab-separated.

    Returns:
        Columns fold, key, other, same (bool); keys are "Name/Name_0001".

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: A line has another format, or lines are missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; set transfer.pairs_file to LFW's pairs.txt")
    try:
        header, *lines = path.read_text(encoding="utf-8").strip().split("\n")
        *given, count = [int(number) for number in header.split()]
        (folds,) = given or [1]
    except ValueError as error:
        raise ValueError(f"{path}, line 1: expected the numbers of folds and of pairs ({error})") from None
    if len(lines) != 2 * folds * count:
        raise ValueError(
            f"{path}: line 1 announces {folds} folds of 2 × {count} pairs, but {len(lines)} lines follow"
        )
    rows = []
    for number, line in enumerate(lines):
        fields = line.split("\t")
        same = number % (2 * count) < count
        if len(fields) != (3 if same else 4) or not all(field.isdecimal() for field in fields[1 :: 2 - same]):
            raise ValueError(
                f"{path}, line {number + 2}: {line!r} is not a {'' if same else 'mis'}matched pair"
            )
        name, i, other, j = (fields[0], fields[1], fields[0], fields[2]) if same else fields
        keys = (f"{person}/{person}_{int(image):04d}" for person, image in ((name, i), (other, j)))
        rows.append((number // (2 * count), *keys, same))
    return pd.DataFrame(rows, columns=["fold", "key", "other", "same"])
