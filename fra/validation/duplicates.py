"""Finds near duplicates among millions of perceptual hashes without comparing all pairs.

The bits of a hash are divided into d + 1 bands. Two hashes that differ in at most d bits agree in at least one band
(pigeonhole principle). For each band the hashes are sorted by its value, and only hashes of equal value are compared.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

BUCKET = 2000
"""Maximum number of hashes of equal value that a hash is compared with in one band. More share a value only where
thousands of images are similar; each is then still compared with the next 2,000 in every band."""


@njit(cache=True)
def band_keys(hash_N4: NDArray[np.uint64], band: int, bands: int) -> NDArray[np.uint64]:
    """Returns a key per hash: bits band, band + bands, … (at most 32) above its row, in 32 bits each.

    Sorted keys are hashes by value, then by row. They sort several times faster than rows by their values, and are
    then read in order.
    """
    out = np.zeros(len(hash_N4), np.uint64)
    for row in range(len(hash_N4)):
        value = np.uint64(0)
        for bit in range(band, 64 * hash_N4.shape[1], bands):
            word = hash_N4[row, bit // 64] >> np.uint64(bit % 64)
            value = (value << np.uint64(1)) | (word & np.uint64(1))
        out[row] = (value << np.uint64(32)) | np.uint64(row)
    return out


@njit(cache=True)
def within(first: NDArray[np.uint64], second: NDArray[np.uint64], limit: int) -> bool:
    """Whether two hashes differ in at most `limit` bits; chance pairs already differ in more in the first word."""
    total = np.int64(0)
    for word in range(len(first)):
        x = first[word] ^ second[word]
        x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
        if total > limit:
            return False
    return True


@njit(cache=True)
def link_pairs(
    hash_G4: NDArray[np.uint64],
    key_G: NDArray[np.uint64],
    limit: int,
    own_GS: NDArray[np.int64],
    near_GS: NDArray[np.int64],
) -> None:
    """Stores, for each pair of hashes within `limit` bits and of equal band value, a row of each with the other.

    Args:
        hash_G4: The distinct hashes.
        key_G: Their keys in this band, sorted.
        limit: Maximum Hamming distance of near duplicates.
        own_GS: A row that has the hash, per side (split); -1 for none.
        near_GS: The lowest row that has a near hash, per side; -1 for none so far. Updated in place.
    """
    low = np.uint64(0xFFFFFFFF)
    for i in range(len(key_G)):
        for j in range(i + 1, min(i + 1 + BUCKET, len(key_G))):
            if (key_G[i] ^ key_G[j]) > low:
                break
            a, b = np.int64(key_G[i] & low), np.int64(key_G[j] & low)
            if within(hash_G4[a], hash_G4[b], limit):
                for side in range(own_GS.shape[1]):
                    if own_GS[b, side] >= 0 and (near_GS[a, side] < 0 or own_GS[b, side] < near_GS[a, side]):
                        near_GS[a, side] = own_GS[b, side]
                    if own_GS[a, side] >= 0 and (near_GS[b, side] < 0 or own_GS[a, side] < near_GS[b, side]):
                        near_GS[b, side] = own_GS[a, side]


def first_rows(code_N: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Returns the first row of each code 0 … size - 1, -1 where there is none; negative codes are ignored."""
    rows = np.flatnonzero(code_N >= 0)[::-1]
    first = np.full(size, -1, np.int64)
    first[code_N[rows]] = rows  # of several rows the last one that is assigned stays
    return first


def last_rows(code_N: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Returns the last row of each code 0 … size - 1, -1 where there is none; negative codes are ignored."""
    first = first_rows(code_N[::-1], size)
    return np.where(first < 0, -1, len(code_N) - 1 - first)


def other_rows(
    code_N: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns, for each row, the first other row of its code (for the first row the last), -1 where there is none."""
    rows = np.arange(len(code_N))
    other = np.where(first[code_N] == rows, last[code_N], first[code_N])
    return np.where(other == rows, -1, other)


def nearest(
    hash_N4: NDArray[np.uint64], side_N: NDArray[np.int64], sides: int, limit: int
) -> NDArray[np.int64]:
    """Returns, for each hash and side (split), another row that differs in at most `limit` bits.

    It is the lowest such row wherever that is lower than the row itself.

    Args:
        hash_N4: Hashes of 256 bits.
        side_N: The side of each hash, 0 … sides - 1.
        sides: Number of sides.
        limit: Maximum number of bits that may differ.

    Returns:
        Rows (N, sides); -1 where there is none.
    """
    if not len(hash_N4):
        return np.full((0, sides), -1, np.int64)
    packed = np.ascontiguousarray(hash_N4).view(f"V{8 * hash_N4.shape[1]}").ravel()
    unique, group_N = np.unique(packed, return_inverse=True)  # equal hashes form one group
    group_N = group_N.ravel()
    cell_N = group_N * sides + side_N
    first, last = (find(cell_N, len(unique) * sides) for find in (first_rows, last_rows))
    first_GS, last_GS = first.reshape(-1, sides), last.reshape(-1, sides)
    hash_G4 = unique.view(np.uint64).reshape(len(unique), -1)
    near_GS = np.full((len(unique), sides), -1, np.int64)
    for band in range(limit + 1):
        link_pairs(hash_G4, np.sort(band_keys(hash_G4, band, limit + 1)), limit, first_GS, near_GS)
    found_NS = near_GS[group_N]
    for side in range(sides):
        equal = other_rows(group_N, first_GS[:, side], last_GS[:, side])
        near = found_NS[:, side]
        found_NS[:, side] = np.where((equal >= 0) & ((near < 0) | (equal < near)), equal, near)
    return found_NS


def row_to_keep(group: pd.Series, side_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns, for each row, the row to keep of those with the same value: the first one of the highest side.

    Args:
        group: The values; rows without a value are kept themselves.
        side_N: The side (split) of each row.
    """
    codes = pd.factorize(group)[0].astype(np.int64)
    order = np.argsort(-side_N, kind="stable")
    kept = order[first_rows(codes[order], int(codes.max(initial=0)) + 1)]
    return np.where(codes >= 0, kept[codes], np.arange(len(codes)))


def conflicts(group: pd.Series, value: pd.Series, side_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns, for each row, one of the same group and the same or a higher side with another value, -1 for none."""
    found = np.full(len(group), -1, np.int64)
    shared = group.duplicated(keep=False).to_numpy()
    for side in np.unique(side_N[shared]):
        rows = np.flatnonzero(shared & (side_N >= side))
        other = first_conflict(group.iloc[rows], value.iloc[rows])
        hit = (other >= 0) & (side_N[rows] == side)
        found[rows[hit]] = rows[other[hit]]
    return found


def first_conflict(group: pd.Series, value: pd.Series) -> NDArray[np.int64]:
    """Returns, for each row, one of the same `group` with another `value`, -1 for none; nulls conflict with nothing."""
    groups, values = (pd.factorize(column)[0].astype(np.int64) for column in (group, value))
    known = (groups >= 0) & (values >= 0)
    size = int(groups.max(initial=0)) + 1
    first = first_rows(np.where(known, groups, -1), size)[
        groups
    ]  # the first row of each group that has a value
    differs = known & (values != values[first])
    second = first_rows(np.where(differs, groups, -1), size)[groups]  # the first one with another value
    return np.where(differs, first, np.where(known, second, -1))
