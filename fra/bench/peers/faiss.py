# /// script
# dependencies = ["faiss-cpu==1.15.1"]
# ///
"""Peer: exact search by Faiss, in an index file without compression, mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np

from fra.bench.measure import Work
from fra.bench.peers.serve import serve


def prepare(folder: str, count: int) -> Work:
    """Returns a search in the vectors of `folder` for its queries; it yields the number of queries.

    The vectors, unlike ours, are already centred and of length 1.
    """
    query_QD = np.load(Path(folder) / "queries.npy")
    rows_ND = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
    index, path = faiss.IndexFlatIP(rows_ND.shape[1]), str(Path(folder) / "faiss.index")
    index.add(rows_ND)
    faiss.write_index(index, path)
    del index

    def run() -> Iterator[int]:
        faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC).search(query_QD, count)
        yield len(query_QD)

    return run


if __name__ == "__main__":
    serve(prepare)
