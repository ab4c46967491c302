# /// script
# dependencies = ["usearch==2.26.6"]
# ///
"""Peer: exact search by USearch in a mapped file of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from usearch.index import MetricKind, search

from fra.bench.measure import Work
from fra.bench.peers.serve import serve


def prepare(folder: str, count: int) -> Work:
    """Returns a search in the vectors of `folder` for its queries; it yields the number of queries.

    The vectors, unlike ours, are already centred and of length 1.
    """
    query_QD = np.load(Path(folder) / "queries.npy")

    def run() -> Iterator[int]:
        rows_ND = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
        search(rows_ND, query_QD, count, MetricKind.IP, exact=True)
        yield len(query_QD)

    return run


if __name__ == "__main__":
    serve(prepare)
