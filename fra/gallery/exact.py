"""Nearest neighbours by comparing queries with all rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fra.gallery.files import Gallery


class Neighbours(NamedTuple):
    """The nearest rows of each query, in descending order.

    Attributes:
        row_QK: Numbers of rows.
        cosine_QK: Their cosines with the query.
    """

    row_QK: NDArray[np.int64]
    cosine_QK: NDArray[np.float32]


def by_comparison(
    known: Gallery, query_QD: NDArray[np.float32], count: int, mean_D: NDArray[np.float32]
) -> Neighbours:
    """The nearest rows of a gallery with mean `mean_D`, by comparing queries of length 1 with all of them."""
    cosine_NQ = np.concatenate([_cosines(block, mean_D, query_QD) for block in known.blocks()])
    rows = [largest(cosine_N, count) for cosine_N in cosine_NQ.T]
    return Neighbours(np.stack(rows), np.stack([cosine_NQ[row, query] for query, row in enumerate(rows)]))


def _cosines(
    rows_ND: NDArray[np.float32], mean_D: NDArray[np.float32], query_QD: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the cosines (N, Q) of rows minus the mean with queries of length 1; 0 for rows that are the mean."""
    centred_ND = rows_ND - mean_D
    length_N = np.sqrt(np.einsum("nd,nd->n", centred_ND, centred_ND))
    cosine_NQ: NDArray[np.float32] = centred_ND @ query_QD.T / np.maximum(length_N, 1e-12)[:, None]
    return cosine_NQ


def largest(values_N: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the indices of the largest values, in descending order; equal values keep their order."""
    if count < len(values_N):
        candidates = np.flatnonzero(values_N >= np.partition(values_N, -count)[-count])
    else:
        candidates = np.arange(len(values_N))
    return candidates[np.argsort(-values_N[candidates], kind="stable")][:count]


def among_all(unit_ND: NDArray[np.float32], own_Q: NDArray[np.int64], count: int) -> Neighbours:
    """The nearest other rows of some rows, by comparing each with all."""
    cosine_QN = unit_ND[own_Q] @ unit_ND.T
    cosine_QN[np.arange(len(own_Q)), own_Q] = -np.inf
    near_QK = np.argpartition(-cosine_QN, count - 1, axis=1)[:, :count] if count else own_Q[:, None][:, :0]
    return best(near_QK, np.take_along_axis(cosine_QN, near_QK, axis=1), count)


def nothing_near(queries: int) -> Neighbours:
    """No neighbours of some queries."""
    return Neighbours(np.zeros((queries, 0), np.int64), np.zeros((queries, 0), np.float32))


def nearer(
    known: Neighbours, block_ND: NDArray[np.float32], first: int, query_QD: NDArray[np.float32], count: int
) -> Neighbours:
    """The nearest of the rows that are known and those of a further block, whose first row is number `first`."""
    cosine_QN = query_QD @ block_ND.T
    near_QC = np.argpartition(-cosine_QN, min(count, len(block_ND)) - 1, axis=1)[:, :count]
    row_QC = np.concatenate([known.row_QK, near_QC + first], axis=1)
    cosine_QC = np.concatenate([known.cosine_QK, np.take_along_axis(cosine_QN, near_QC, axis=1)], axis=1)
    return best(row_QC, cosine_QC, count)


def best(row_QC: NDArray[Any], cosine_QC: NDArray[np.float32], count: int) -> Neighbours:
    """The rows of the largest cosines, in descending order; of equal ones the lowest row first."""
    order_QK = np.lexsort((row_QC, -cosine_QC), axis=1)[:, :count]
    return Neighbours(
        np.take_along_axis(row_QC, order_QK, axis=1).astype(np.int64),
        np.take_along_axis(cosine_QC, order_QK, axis=1),
    )
