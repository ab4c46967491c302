"""Where each face is on the map: its nearest neighbours, its cluster, and its position by UMAP."""

from __future__ import annotations

import importlib.util
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from fra.gallery.neighbours import among, unit

NEIGHBOURS = 15
"""Neighbours of a face that UMAP keeps close to it, and that the viewer lists."""
SMALLEST = 5
"""Fewest faces that UMAP arranges; fewer are drawn in a row."""

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Layout(NamedTuple):
    """The map of N faces.

    Attributes:
        position_N2: Position of each face, without a unit.
        neighbour_NK: Rows of the nearest other faces, the nearest first.
        distance_NK: Their cosine distance, 0 to 2.
        cluster_N: Number of each face's cluster; 0 is the largest cluster.
        typical_C: Row of each cluster's most typical face, the one nearest to the cluster's mean.
    """

    position_N2: Floats
    neighbour_NK: Rows
    distance_NK: Floats
    cluster_N: Rows
    typical_C: Rows


def arrange(embeddings_ND: Floats, clusters: int = 10, seed: int = 0) -> Layout:
    """Arrange faces by their embeddings: the same embeddings and seed give the same map on the same machine.

    Embeddings are compared by the cosine after the mean, which all faces share, is subtracted, as in `fra search`.

    Args:
        embeddings_ND: One row per face.
        clusters: Number of clusters (k-means); fewer where there are fewer faces.
        seed: Seed of UMAP and k-means.
    """
    centred_ND = unit(np.asarray(embeddings_ND - embeddings_ND.mean(axis=0), np.float32))
    with tqdm(total=3, desc="map: neighbours", unit="step") as bar, threadpool_limits(1):
        found = among(centred_ND, NEIGHBOURS)
        neighbour_NK, distance_NK = found.row_QK, np.maximum(0, 1 - found.cosine_QK)
        bar.update()
        bar.set_description("map: clusters")
        cluster_N, typical_C = cluster(centred_ND, clusters, seed)
        bar.update()
        bar.set_description("map: UMAP")
        position_N2 = project(centred_ND, neighbour_NK, distance_NK, seed)
        bar.update()
    return Layout(position_N2, neighbour_NK, distance_NK, cluster_N, typical_C)


def cluster(vectors_ND: Floats, count: int, seed: int) -> tuple[Rows, Rows]:
    """Group rows by k-means: the cluster of each row, largest cluster first, and the row nearest to each mean."""
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(vectors_ND, axis=0)))
    found = KMeans(count, n_init=2, random_state=seed).fit(vectors_ND)
    order = np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable")
    typical_C = found.transform(vectors_ND).argmin(axis=0)[order]
    return np.argsort(order)[found.labels_].astype(np.int64), typical_C.astype(np.int64)


def check_umap() -> None:
    """Raises ModuleNotFoundError where UMAP is not installed."""
    if importlib.util.find_spec("umap") is None:
        raise ModuleNotFoundError("the atlas needs UMAP: pip install umap-learn", name="umap")


def project(vectors_ND: Floats, neighbour_NK: Rows, distance_NK: Floats, seed: int) -> Floats:
    """Return a position per row, (N, 2), by UMAP (McInnes et al., arXiv 1802.03426), from known neighbours."""
    number = len(vectors_ND)
    if number < SMALLEST:
        return np.stack([np.arange(number), np.zeros(number)], axis=1).astype(np.float32)
    from umap import UMAP  # the import takes seconds

    itself_N1 = np.arange(number)[:, None]
    known = (
        np.concatenate([itself_N1, neighbour_NK], axis=1),
        np.concatenate([np.zeros_like(itself_N1, np.float32), distance_NK], axis=1),
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that it cannot place further points, and that the seed costs threads
        umap = UMAP(
            n_neighbors=known[0].shape[1],
            init="pca",
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(*known, None),
        )
        position_N2: Floats = umap.fit_transform(vectors_ND).astype(np.float32)
    return position_N2
