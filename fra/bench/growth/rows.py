"""Work on rows, from synthetic ones in memory or on disk, each in a process of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fra.bench.growth.table import Cost, Costs
from fra.bench.measure import Work, measure, process_memory
from fra.bench.neighbours import clustered
from fra.bench.probe import synthetic_features
from fra.gallery.exact import by_comparison
from fra.gallery.files import read, write
from fra.gallery.neighbours import mean_of, unit, write_index
from fra.inference.image_files import Source
from fra.transfer.heads import SIGMOIDS
from fra.validation.config import ValidateConfig
from fra.validation.duplicates import nearest

SIZE = 128
"""Numbers per embedding."""


def near_duplicates(rows: int, folder: Path) -> Work:
    """Returns the search for near-duplicates among perceptual hashes."""
    random = np.random.default_rng(0)
    hash_N4 = random.integers(0, 2**64, (rows, 4), dtype=np.uint64, endpoint=False)
    hash_N4[1::1000] = hash_N4[:-1:1000] ^ np.uint64(5)
    side_N = random.integers(0, 3, rows)
    limit = ValidateConfig().near_duplicate_bits
    nearest(hash_N4[:10], side_N[:10], 3, limit)  # compiles

    def run() -> Iterator[int]:
        nearest(hash_N4, side_N, 3, limit)
        yield rows

    return run


def writing(rows: int, folder: Path) -> Work:
    """Returns writing embeddings to an .arrow file."""
    rows_ND, _ = clustered(rows, SIZE, 1)
    sources = [Source(str(row)) for row in range(rows)]

    def run() -> Iterator[int]:
        write(sources, rows_ND, {"weights": "0"}, folder / "gallery.arrow")
        yield rows

    return run


def exact_search(rows: int, folder: Path) -> Work:
    """Returns exact search for one embedding in an .arrow file."""
    path = _write_gallery(rows, folder)
    _, query_QD = clustered(1, SIZE, 1)

    def run() -> Iterator[int]:
        known = read(path)
        mean_D = mean_of(known)
        by_comparison(known, unit(query_QD - mean_D), 10, mean_D)
        yield rows

    return run


def indexing(rows: int, folder: Path) -> Work:
    """Returns writing the index of an .arrow file."""
    path = _write_gallery(rows, folder)

    def run() -> Iterator[int]:
        write_index(path)
        yield rows

    return run


def probing(rows: int, folder: Path) -> Work:
    """Returns fitting the linear probe of ten labels."""
    x_ND, y_NO = synthetic_features(rows, SIZE, 10)

    def run() -> Iterator[int]:
        SIGMOIDS.fit(x_ND, y_NO, SIGMOIDS.grid)
        yield rows

    return run


WORKS: dict[str, Callable[[int, Path], Work]] = {
    "near-duplicates": near_duplicates,
    "writing embeddings": writing,
    "exact search": exact_search,
    "index": indexing,
    "linear probe": probing,
}


def measure_rows(sizes: Sequence[int]) -> Costs:
    """Measures all work on rows at all sizes; preparation counts in the memory alone."""
    costs: dict[str, dict[int, Cost]] = {}
    for name in WORKS:
        for size in sorted(sizes):
            print(f"{size:,} rows: {name}", file=sys.stderr)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                costs.setdefault(name, {})[size] = pool.submit(_cost, name, size).result()
    return costs


def _cost(name: str, rows: int) -> Cost:
    with tempfile.TemporaryDirectory(prefix="fra-growth-") as folder:
        work = WORKS[name](rows, Path(folder))
        before = process_memory("VmRSS")
        taken = measure(work)
        return Cost(taken.wall, taken.cpu, before + taken.memory)


def _write_gallery(rows: int, folder: Path) -> Path:
    list(writing(rows, folder)())
    return folder / "gallery.arrow"
