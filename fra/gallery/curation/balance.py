"""Over-represented clusters, and subsets that cover the space of embeddings evenly."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans

SEED = 0
MANY = 20_000
"""Rows above which k-means takes them in batches."""


def clusters(unit_ND: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The cluster of each row by k-means, and the centres."""
    kind = KMeans if len(unit_ND) <= MANY else MiniBatchKMeans
    fitted = kind(min(count, len(unit_ND)), n_init=1, random_state=SEED).fit(unit_ND)
    return fitted.labels_.astype(np.int64), fitted.cluster_centers_.astype(np.float32)


def crowded(unit_ND: NDArray[np.float32], limit: float) -> pd.DataFrame:
    """Suggests images of clusters that have more than `limit` times the median number, so that this number is left."""
    cluster_N, _ = clusters(unit_ND, max(2, round(np.sqrt(len(unit_ND)))))
    size_C = np.bincount(cluster_N)
    most = limit * np.median(size_C[size_C > 0])
    shuffled = np.random.default_rng(SEED).permutation(len(unit_ND))
    rank_N = (
        pd.Series(cluster_N[shuffled], index=shuffled).groupby(cluster_N[shuffled]).cumcount().sort_index()
    )
    return pd.DataFrame(
        {
            "score": size_C[cluster_N] / np.median(size_C[size_C > 0]),
            "suggested": rank_N.to_numpy() >= most,
            "cluster": cluster_N,
        }
    )


def balanced(unit_ND: NDArray[np.float32], count: int) -> pd.DataFrame:
    """Suggests a subset that covers the space evenly, by k-means of k-means (Vo et al. 2024, arXiv 2405.15613).

    Centres of small clusters are clustered again. The number of images is divided among the upper clusters as evenly as
    their sizes allow, then among the small clusters of each, and drawn at random in them.
    """
    cluster_N, centres_CD = clusters(unit_ND, max(2, round(2 * np.sqrt(len(unit_ND)))))
    upper_C, _ = clusters(centres_CD, max(2, round(np.sqrt(len(centres_CD)))))
    size_C = np.bincount(cluster_N, minlength=len(centres_CD))
    upper_sizes = np.bincount(upper_C, weights=size_C).astype(np.int64)
    share_C = np.zeros(len(centres_CD), np.int64)
    for number, share in enumerate(evenly(upper_sizes, count)):
        members = np.flatnonzero(upper_C == number)
        share_C[members] = evenly(size_C[members], int(share))
    generator, chosen_N = np.random.default_rng(SEED), np.zeros(len(unit_ND), bool)
    for number, share in enumerate(share_C):
        chosen_N[generator.permutation(np.flatnonzero(cluster_N == number))[:share]] = True
    return pd.DataFrame({"score": 1 / size_C[cluster_N], "suggested": chosen_N, "cluster": cluster_N})


def evenly(size_C: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Shares of `count` that are as equal as the sizes allow; they sum to `count` or to the sum of the sizes."""
    share_C, left = np.zeros_like(size_C), min(count, int(size_C.sum()))
    while left:
        room = np.flatnonzero(share_C < size_C)
        each = max(left // len(room), 1)
        for number in room[: left if each == 1 else len(room)]:
            added = min(each, int(size_C[number] - share_C[number]), left)
            share_C[number] += added
            left -= added
    return share_C
