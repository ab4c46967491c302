"""Time and memory that validation of a large manifest takes.

The rows are copies of the embedded set's, each with its own name, person, bytes and perceptual hash; one in a thousand
is a near copy of another. The manifest, landmarks included, is written and read as parquet. Rules, result, quarantine
list and pages are those of the stage. Decoding of the images is not included: `fra.validation.measure` shows its rate
in a progress bar.
"""

from __future__ import annotations

import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fra.files import sha256
from fra.validation import manifest, validate
from fra.validation.config import ValidateConfig
from fra.validation.measure import Measures, measure
from fra.validation.rules.suite import suite
from fra.validation.validate import DatasetFiles, ValidationInputs

NEAR = 1000
"""Every NEAR-th row is a near copy of the one before it."""


def multiply(path: Path, rows: int) -> pa.Table:
    """Returns a manifest of `rows` rows that repeat those of the manifest at `path` under other names."""
    table = pq.read_table(path)
    take = np.arange(rows) % len(table)
    large = table.take(pa.array(take))
    turn = np.arange(rows) // len(table)
    index = pd.Series(1, index=range(rows)).groupby(large["split"].to_pandas()).cumsum() - 1
    new = {
        "key": [f"{key}-{number}" for key, number in zip(large["key"].to_pylist(), turn, strict=True)],
        "source": [
            f"{number}/{source}" for source, number in zip(large["source"].to_pylist(), turn, strict=True)
        ],
        "person": [
            f"{person}-{number}" for person, number in zip(large["person"].to_pylist(), turn, strict=True)
        ],
        "sha256": [f"{row:064x}" for row in range(rows)],
        "index": index.tolist(),
    }
    for name, values in new.items():
        large = large.set_column(large.column_names.index(name), name, pa.array(values))
    return large


def hashes_like(measured: Measures, rows: int) -> NDArray[np.uint64]:
    """Returns (rows, 4) hashes: real ones with some 64 of 256 bits flipped, each NEAR-th 4 bits from the previous."""
    random = np.random.default_rng(0)
    real = measured.hashes[np.arange(rows) % len(measured.hashes)]
    masks = [random.integers(0, 2**64, real.shape, dtype=np.uint64, endpoint=False) for _ in range(2)]
    made = real ^ (masks[0] & masks[1])
    near = np.arange(NEAR, rows, NEAR)
    made[near] = made[near - 1] ^ np.array([1 << 7, 1 << 40, 1 << 3, 1 << 62], dtype=np.uint64)
    return made


def prepare(data: DatasetFiles, rows: int, large: Path) -> Measures:
    """Writes a manifest of `rows` rows like those of `data` to `large`; returns measurements of such images."""
    finder = validate.face_finder(ValidateConfig())
    measured = measure(manifest.read(data.manifest), data.shards, [], finder=finder)
    pq.write_table(multiply(data.manifest, rows), large)
    columns = measured.images.iloc[np.arange(rows) % len(measured.images)].reset_index(drop=True)
    return Measures(columns, hashes_like(measured, rows), measured.files.iloc[:0], {})


def measure_validation(rows: int, name: str = "orl") -> dict[str, Any]:
    """Validates a manifest of `rows` rows made from the data set `name` of the project in the current folder.

    Returns:
        `seconds` of wall and CPU time, those of reading, peak memory in GiB, the numbers of rules and of quarantined
        rows, and the rules that did not pass with the number of rows that break them.

    Raises:
        FileNotFoundError: The project has no manifest of the data set.
    """
    data = DatasetFiles(name, Path("data/manifest") / f"{name}.parquet", Path("data/shards") / name)
    if not data.manifest.is_file():
        raise FileNotFoundError(f"{data.manifest}: missing: run `dvc repro validate`, which writes it")
    config = ValidateConfig()
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.parquet"
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # its memory does not count
            measured = pool.submit(prepare, data, rows, large).result()
        start, cpu = time.perf_counter(), time.process_time()
        listed = manifest.read(large)
        read = time.perf_counter()
        case = ValidationInputs(data, listed, measured, {large.as_posix(): sha256(large)})
        result, quarantined = validate.evaluate(case, suite(config, listed.labels), Path(folder), config)
        end, cpu = time.perf_counter(), time.process_time() - cpu
    return {
        "rows": result.rows,
        "rules": len(result.expectations),
        "seconds": round(end - start, 1),
        "cpu_seconds": round(cpu, 1),
        "seconds_reading": round(read - start, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "quarantined": len(quarantined),
        "failed_rules": {
            rule["name"]: rule["unexpected_count"] for rule in result.expectations if not rule["success"]
        },
    }
