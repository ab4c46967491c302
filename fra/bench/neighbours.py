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
import pyarrow as pa
from numpy.typing import NDArray

from fra.bench.measure import comparison
from fra.gallery.embed import PART
from fra.gallery.exact import Neighbours, nearer, nothing_near
from fra.gallery.files import Gallery, read, table_of, write_tables
from fra.gallery.neighbours import by_index, index_path, mean_of, open_index, unit, write_index
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
    found, first = nothing_near(len(query_QD)), 0
    for block in known.blocks(BLOCK):
        found = nearer(found, unit(block - mean_D), first, query_QD, count)
        first += len(block)
    return found


def in_part(rows_ND: NDArray[np.float32], first: int) -> pa.Table:
    """The table of the rows from `first` on that `fra embed` would write at a time."""
    part = rows_ND[first : first + PART]
    return table_of([Source(str(first + row)) for row in range(len(part))], part, faces=False)


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
        queries/s, `ratio`, recall, median milliseconds per query, and seconds and peak memory of a process that builds
        the index.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        path = Path(name) / "gallery.arrow"
        rows_ND, raw_QD = clustered(count, size, queries)
        parts = (in_part(rows_ND, first) for first in range(0, count, PART))
        write_tables(parts, count, {"weights": "0"}, path)
        del rows_ND
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            wall, cpu, peak = pool.submit(timed_index, path).result()
        known, opened = read(path), open_index(path)
        assert opened is not None
        query_QD = unit(raw_QD - mean_of(known))
        begin = time.process_time()
        expected = exact(known, opened.mean_D, query_QD, nearest).row_QK
        middle = time.process_time()
        took, took_cpu, found = [], [], []
        for query_D in query_QD:
            start, start_cpu = time.perf_counter(), time.process_time()
            found.append(by_index(opened, known, query_D[None], nearest).row_QK[0])
            took.append(time.perf_counter() - start)
            took_cpu.append(time.process_time() - start_cpu)
        end = time.process_time()
        shared = [len(set(a) & set(b)) for a, b in zip(expected, found, strict=True)]
        return {
            **comparison(queries / (middle - begin), queries / (end - middle), "queries/s"),
            "rows": count,
            "size": size,
            "recall": float(np.mean(shared)) / nearest,
            "query_ms_median": float(np.median(took)) * 1e3,
            "query_ms_cpu_median": float(np.median(took_cpu)) * 1e3,
            "lists_searched": opened.lists.nprobe / opened.lists.nlist,
            "index_seconds": wall,
            "index_cpu_seconds": cpu,
            "index_mib": index_path(path).stat().st_size / 2**20,
            "peak_gib": peak,
        }
