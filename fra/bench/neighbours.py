"""The index of neighbours compared with exact search, on synthetic vectors in clusters."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fra.bench.measure import comparison
from fra.gallery.files import Gallery, read, write
from fra.gallery.neighbours import (
    Neighbours,
    best,
    by_index,
    index_path,
    mean_of,
    open_index,
    unit,
    write_index,
)
from fra.inference.image_files import Source

PER_PERSON = 20
"""Mean number of vectors of a cluster."""
DECAY = 0.5
"""The standard deviation of dimension i is i to the power of minus this: components of embeddings decay."""
SPREAD = 0.6
"""Standard deviation inside a cluster, divided by that between clusters."""
BLOCK = 50_000


def clustered(
    count: int, size: int, queries: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows in clusters of different sizes, and queries from the same clusters."""
    generator = np.random.default_rng(seed)
    scale_D = (np.arange(1, size + 1) ** -DECAY).astype(np.float32)
    centres = generator.standard_normal((max(1, count // PER_PERSON), size), dtype=np.float32) * scale_D
    rows_ND = np.empty((count + queries, size), np.float32)
    for first in range(0, len(rows_ND), BLOCK):
        block = rows_ND[first : first + BLOCK]
        noise = generator.standard_normal(block.shape, dtype=np.float32)
        block[:] = centres[generator.integers(0, len(centres), len(block))] + SPREAD * scale_D * noise
    return rows_ND[:count], rows_ND[count:]


def exact(
    known: Gallery, mean_D: NDArray[np.float32], query_QD: NDArray[np.float32], count: int
) -> Neighbours:
    """The nearest rows by comparing each query with all rows."""
    row_QC, cosine_QC = np.zeros((len(query_QD), 0), np.int64), np.zeros((len(query_QD), 0), np.float32)
    first = 0
    for block in known.blocks(BLOCK):
        rows = np.broadcast_to(np.arange(first, first + len(block)), (len(query_QD), len(block)))
        cosine_QN = query_QD @ unit(block - mean_D).T
        near = np.argpartition(-cosine_QN, min(count, len(block)) - 1, axis=1)[:, :count]
        row_QC = np.concatenate([row_QC, np.take_along_axis(rows, near, axis=1)], axis=1)
        cosine_QC = np.concatenate([cosine_QC, np.take_along_axis(cosine_QN, near, axis=1)], axis=1)
        row_QC, cosine_QC = best(row_QC, cosine_QC, count)
        first += len(block)
    return Neighbours(row_QC, cosine_QC)


def timed_index(gallery: Path) -> tuple[float, float, float]:
    """Writes the index of a gallery; returns seconds, CPU seconds and peak memory of this process in GiB."""
    wall, cpu = time.perf_counter(), time.process_time()
    write_index(gallery)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare_neighbours(count: int, size: int, queries: int, nearest: int = 10) -> dict[str, Any]:
    """Writes a gallery and its index, and searches both.

    Returns:
        `baseline` (exact search, all queries at once) and `ours` (index, one query at a time, with exact cosines) in
        queries/s, `ratio`, recall, seconds and peak memory of a process that builds the index.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        path = Path(name) / "gallery.arrow"
        rows_ND, raw_QD = clustered(count, size, queries)
        write([Source(str(row)) for row in range(count)], rows_ND, {"weights": "0"}, path)
        del rows_ND
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            wall, cpu, peak = pool.submit(timed_index, path).result()
        known, opened = read(path), open_index(path)
        assert opened is not None
        query_QD = unit(raw_QD - mean_of(known))
        begin = time.process_time()
        expected = exact(known, opened.mean_D, query_QD, nearest).row_QK
        middle = time.process_time()
        took, found = [], []
        for query_D in query_QD:
            start = time.perf_counter()
            found.append(by_index(opened, known, query_D[None], nearest).row_QK[0])
            took.append(time.perf_counter() - start)
        end = time.process_time()
        shared = [len(set(a) & set(b)) for a, b in zip(expected, found, strict=True)]
        return {
            **comparison(queries / (middle - begin), queries / (end - middle)),
            "rows": count,
            "size": size,
            "recall": float(np.mean(shared)) / nearest,
            "query_ms_median": float(np.median(took)) * 1e3,
            "query_ms_cpu": (end - middle) / queries * 1e3,
            "index_seconds": wall,
            "index_cpu_seconds": cpu,
            "index_mib": index_path(path).stat().st_size / 2**20,
            "peak_gib": peak,
        }
