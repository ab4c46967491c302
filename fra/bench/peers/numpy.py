"""Peer: exact search by NumPy, a product with a mapped file of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fra.bench.measure import Work
from fra.bench.peers.serve import serve


def prepare(folder: str, count: int) -> Work:
    """Returns a search in the vectors of `folder` for its queries; it yields the number of queries.

    The vectors, unlike ours, are already centred and of length 1.
    """
    query_QD = np.load(Path(folder) / "queries.npy")

    def run() -> Iterator[int]:
        cosine_QN = query_QD @ np.load(Path(folder) / "vectors.npy", mmap_mode="r").T
        near_QK = np.argpartition(-cosine_QN, count - 1, axis=1)[:, :count]
        np.take_along_axis(near_QK, np.argsort(-np.take_along_axis(cosine_QN, near_QK, 1)), 1)
        yield len(query_QD)

    return run


if __name__ == "__main__":
    serve(prepare)
