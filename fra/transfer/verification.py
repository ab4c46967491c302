"""Verification: pairs of images, drawn or given, compared by the cosine of their features."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data import images
from fra.transfer.heads import Array, unit
from fra.transfer.metrics import best_threshold
from fra.transfer.splits import Index, people
from fra.validation.image_stats import HASH_WORDS, NEAR_COPY_BITS, perceptual_hash

logger = logging.getLogger(__name__)

ROUNDS = 100
"""Number of attempts to draw enough pairs of two people."""


@dataclass(frozen=True)
class Copies:
    """Which images are copies of each other: equal files, or nearly equal perceptual hashes, as in validation.

    Attributes:
        file_N: A number for each different file content.
        hash_N4: Perceptual hash of each image, see `fra.validation.image_stats.perceptual_hash`.
        bits: Largest number of different hash bits of a near copy.
    """

    file_N: Index
    hash_N4: NDArray[np.uint64]
    bits: int = NEAR_COPY_BITS

    @classmethod
    def of(cls, frame: pd.DataFrame, shards: Path) -> Copies:
        """Read the images of the manifest's rows and compute their hashes."""
        hash_N4 = np.zeros((len(frame), HASH_WORDS), np.uint64)
        row = {key: number for number, key in enumerate(frame["key"])}
        for shard, part in frame.groupby("shard", sort=True):
            for key, content in images.members(shards / str(shard), set(part["key"])):
                hash_N4[row[key]] = perceptual_hash(images.decode(content))
        return cls(pd.factorize(frame["sha256"])[0], hash_N4)

    def are_copies(self, first_P: Index, second_P: Index) -> NDArray[np.bool_]:
        """Return whether the two images of each pair are copies of each other: (P,)."""
        bits_P = np.bitwise_count(self.hash_N4[first_P] ^ self.hash_N4[second_P]).sum(axis=1)
        same_P: NDArray[np.bool_] = (self.file_N[first_P] == self.file_N[second_P]) | (bits_P <= self.bits)
        return same_P

    def select(self, rows: Index) -> Copies:
        """Return the copies among some rows."""
        return Copies(self.file_N[rows], self.hash_N4[rows], self.bits)


def compare_drawn_pairs(
    frame: pd.DataFrame, x_ND: Array, limit: int, seed: int, copies: Copies
) -> pd.DataFrame:
    """Score drawn pairs of test subjects by the cosine of their features minus the training mean.

    Nothing is trained, and copies of one image are no pair (`copies` has the rows of `frame`). The threshold of
    `prediction` is the most accurate one on pairs of validation subjects.
    """
    unit_ND = unit(x_ND - x_ND[frame["split"] == "train"].mean(axis=0))
    scored = {}
    for name in ("val", "test"):
        rows = np.flatnonzero(frame["split"] == name)
        first, second, same = draw_pairs(
            people(frame).to_numpy(dtype=str)[rows], limit, seed, copies.select(rows)
        )
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
    person_N: NDArray[np.generic], limit: int, seed: int, copies: Copies
) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Draw distinct pairs of rows, half of them of one person, without pairs of copies.

    All pairs of one person (at most `limit`, drawn at random), and the same number of random pairs of two people.

    Returns:
        first_P, second_P (row numbers) and same_P.

    Raises:
        ValueError: No person has two different images, or there is only one person.
    """
    generator = np.random.default_rng([seed, 3])
    _, person_N = np.unique(person_N, return_inverse=True)
    rows_of = [np.flatnonzero(person_N == p) for p in range(person_N.max() + 1)]
    same = np.concatenate([_pairs_without_copies(rows, copies) for rows in rows_of])
    same_person = sum(len(rows) * (len(rows) - 1) // 2 for rows in rows_of)
    if copied := same_person - len(same):
        logger.warning(
            "verification: %s of %s pairs of one person are copies of one image and are left out",
            *(f"{copied:,}", f"{same_person:,}"),
        )
    different = (len(person_N) * (len(person_N) - 1)) // 2 - same_person
    if not len(same) or not different:
        raise ValueError(
            f"verification needs people with several images and at least two people; "
            f"here {len(rows_of)} people have {len(person_N)} images, and {copied} pairs are copies"
        )
    count = min(limit, len(same), different)
    same = same[generator.choice(len(same), count, replace=False)]
    others: dict[tuple[int, int], None] = {}  # ordered, without duplicates
    for _ in range(ROUNDS):
        drawn_P2 = generator.integers(len(person_N), size=(2 * count, 2))
        valid_P = (person_N[drawn_P2[:, 0]] != person_N[drawn_P2[:, 1]]) & ~copies.are_copies(*drawn_P2.T)
        for a, b in drawn_P2[valid_P]:
            if len(others) < count:
                others[(int(min(a, b)), int(max(a, b)))] = None
        if len(others) == count:
            break
    if not others:
        raise ValueError("verification: all images of different people are copies of each other")
    count = len(others)
    pairs = np.concatenate([same[:count], np.array(list(others), dtype=np.intp)])
    return pairs[:, 0], pairs[:, 1], np.arange(2 * count) < count


def _pairs_without_copies(rows: Index, copies: Copies) -> NDArray[np.intp]:
    """Return all pairs (P, 2) of one person's rows that are not copies, in order."""
    pairs_P2 = rows[np.stack(np.triu_indices(len(rows), 1), axis=1)]
    return pairs_P2[~copies.are_copies(pairs_P2[:, 0], pairs_P2[:, 1])]


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
