"""Images that are nearly the same, among millions: no two hashes are compared that share no band of bits.

Two hashes that differ in at most d bits agree in at least one of d + 1 bands, whatever the bits (pigeonhole). So each
band is sorted by, and only neighbours with equal values are compared: exact, and far from quadratic.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

BUCKET = 2000
"""Within a band, a hash is compared with at most so many that share its value. More only happens where thousands of
images are alike by far more than chance; then each still meets its 2,000 next ones in every band."""


@njit(cache=True)
def band_values(hash_N4: NDArray[np.uint64], band: int, bands: int) -> NDArray[np.int64]:
    """Bits band, band + bands, band + 2 · bands … of each hash, as a number."""
    out = np.zeros(len(hash_N4), np.int64)
    for row in range(len(hash_N4)):
        value = np.int64(0)
        for bit in range(band, 64 * hash_N4.shape[1], bands):
            word = hash_N4[row, bit // 64] >> np.uint64(bit % 64)
            value = (value << np.int64(1)) | np.int64(word & np.uint64(1))
        out[row] = value
    return out


@njit(cache=True)
def bits_apart(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> int:
    """The number of bits in which two hashes differ."""
    total = 0
    for word in range(len(first)):
        x = first[word] ^ second[word]
        x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
    return total


@njit(cache=True)
def link(
    hash_G4: NDArray[np.uint64],
    value_G: NDArray[np.int64],
    order_G: NDArray[np.int64],
    limit: int,
    own_GS: NDArray[np.int64],
    near_GS: NDArray[np.int64],
) -> None:
    """For each pair of one band value within `limit` bits: each learns a row of the other, by side."""
    for i in range(len(order_G)):
        a = order_G[i]
        for j in range(i + 1, min(i + 1 + BUCKET, len(order_G))):
            b = order_G[j]
            if value_G[b] != value_G[a]:
                break
            if bits_apart(hash_G4[a], hash_G4[b]) <= limit:
                for side in range(own_GS.shape[1]):
                    if near_GS[a, side] < 0:
                        near_GS[a, side] = own_GS[b, side]
                    if near_GS[b, side] < 0:
                        near_GS[b, side] = own_GS[a, side]


def nearest(
    hash_N4: NDArray[np.uint64], side_N: NDArray[np.int64], sides: int, limit: int
) -> NDArray[np.int64]:
    """For every hash one other row of each side (split) that differs in at most `limit` bits: (N, sides), -1: none."""
    if not len(hash_N4):
        return np.full((0, sides), -1, np.int64)
    packed = np.ascontiguousarray(hash_N4).view(f"V{8 * hash_N4.shape[1]}").ravel()
    _, group_N = np.unique(
        packed, return_inverse=True
    )  # equal hashes are one group: nothing compares them pairwise
    group_N = group_N.ravel()
    rows = np.arange(len(hash_N4))
    groups = int(group_N.max()) + 1
    first_GS = np.full((groups, sides), -1, np.int64)
    last_GS = np.full((groups, sides), -1, np.int64)
    first_GS[group_N[::-1], side_N[::-1]] = rows[::-1]
    last_GS[group_N, side_N] = rows
    hash_G4 = np.empty((groups, hash_N4.shape[1]), np.uint64)
    hash_G4[group_N] = hash_N4
    near_GS = np.full((groups, sides), -1, np.int64)
    for band in range(limit + 1):
        value_G = band_values(hash_G4, band, limit + 1)
        link(hash_G4, value_G, np.argsort(value_G, kind="stable"), limit, first_GS, near_GS)
    found_NS = near_GS[group_N]
    for side in range(sides):  # rows of its own group, other than itself
        own = first_GS[group_N, side]
        other = np.where(own == rows, last_GS[group_N, side], own)
        found_NS[:, side] = np.where((other >= 0) & (other != rows), other, found_NS[:, side])
    return found_NS


def first_other(group: pd.Series) -> NDArray[np.int64]:
    """For every row the first other row with the same value of `group`, -1 where there is none (or no value)."""
    codes = pd.factorize(group)[0]
    rows = np.arange(len(codes))
    first = np.full(codes.max(initial=-1) + 1, -1, np.int64)
    last = first.copy()
    known = codes >= 0
    first[codes[known][::-1]] = rows[known][::-1]
    last[codes[known]] = rows[known]
    other = (
        np.where(first[codes] == rows, last[codes], first[codes]) if len(first) else np.full(len(codes), -1)
    )
    return np.where(known & (other != rows), other, -1)


def first_conflict(group: pd.Series, value: pd.Series) -> NDArray[np.int64]:
    """For every row a row of the same `group` whose `value` is another one, -1 where there is none; nulls agree with all."""
    codes, kinds = pd.factorize(group)[0], pd.factorize(value)[0]
    rows = np.arange(len(codes))
    known = (codes >= 0) & (kinds >= 0)
    size = codes.max(initial=-1) + 1
    low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, -1)
    np.minimum.at(low, codes[known], kinds[known])
    np.maximum.at(high, codes[known], kinds[known])
    found = np.full(len(codes), -1, np.int64)
    mixed = known.copy()
    mixed[known] = low[codes[known]] != high[codes[known]]
    if mixed.any():
        row_of_low, row_of_high = np.full(size, -1), np.full(size, -1)
        is_low = mixed & (kinds == low[codes])
        is_high = mixed & (kinds == high[codes])
        row_of_low[codes[is_low][::-1]] = rows[is_low][::-1]
        row_of_high[codes[is_high][::-1]] = rows[is_high][::-1]
        found[mixed] = np.where(
            kinds[mixed] == low[codes[mixed]], row_of_high[codes[mixed]], row_of_low[codes[mixed]]
        )
    return found
