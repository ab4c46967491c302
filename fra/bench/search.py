"""Exact search in a file of embeddings, compared with what peers do in files of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fra.bench.measure import alternate, compared, measure
from fra.bench.neighbours import BLOCK, clustered
from fra.bench.peers.process import Peer, running
from fra.gallery.exact import by_comparison
from fra.gallery.files import read, write
from fra.gallery.neighbours import mean_of, unit
from fra.inference.image_files import Source


def compare_search(
    peer: Peer, rows: int = 1_000_000, size: int = 512, queries: int = 1, rounds: int = 3, nearest: int = 10
) -> dict[str, Any]:
    """Searches an .arrow file for queries, from opening it to the rows found, in alternating rounds.

    The files are in the page cache. Ours subtracts the mean and divides by the length of every row; the peer's file
    holds vectors for which that is done.

    Returns:
        `baseline` (the peer) and `ours` in queries/s, `ratio`, `cpu_ratio` and the peak memory of a search.

    Raises:
        RuntimeError: The peer cannot be installed or fails.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder = Path(name)
        path = folder / "gallery.arrow"
        query_QD = _write_vectors(folder, path, rows, size, queries)

        def ours() -> Iterator[int]:
            known = read(path)
            by_comparison(known, query_QD, nearest, mean_of(known))
            yield queries

        list(ours())
        with running(peer, {"folder": name, "count": nearest}) as baseline:
            baseline()
            taken = alternate({"baseline": baseline, "ours": partial(measure, ours)}, rounds)
    return {
        **compared(taken, "queries/s"),
        "peer": peer.name,
        "rows": rows,
        "size": size,
        "queries": queries,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }


def _write_vectors(folder: Path, path: Path, rows: int, size: int, queries: int) -> NDArray[np.float32]:
    """Writes our gallery and a peer's vectors and queries; returns our queries, of length 1."""
    rows_ND, raw_QD = clustered(rows, size, queries)
    write([Source(str(row)) for row in range(rows)], rows_ND, {"weights": "0"}, path)
    mean_D = mean_of(read(path))
    for first in range(0, rows, BLOCK):
        rows_ND[first : first + BLOCK] = unit(rows_ND[first : first + BLOCK] - mean_D)
    query_QD = unit(raw_QD - mean_D)
    np.save(folder / "vectors.npy", rows_ND)
    np.save(folder / "queries.npy", query_QD)
    return query_QD
