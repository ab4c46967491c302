"""Parts of the fault table: complete files or none, detected damage, one process per stage, errors in one line."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ffcv.fields import RGBImageField
from PIL import Image
from safetensors.torch import save_file
from support.workspace import ROOT, run

from fra.data.datasets.adapters import orl
from fra.data.datasets.records import DatasetConfig
from fra.data.shards.beton import write_split
from fra.files import atomic, read_parquet, write_parquet
from fra.weights.files import read_weights, save_weights

WRITER = """
import sys, time
from pathlib import Path
from fra.files import atomic
with atomic(Path(sys.argv[1])) as partial:
    partial.write_text(sys.argv[2])
    print("running", flush=True)
    time.sleep(float(sys.argv[3]))
"""
STAGE = """
import time
from pipelines.stage import main
def toy():
    print("running", flush=True)
    time.sleep(600)
main(toy)
"""


def start(folder: Path, program: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a Python program and returns its process once it prints "running"."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, place: int) -> None:
    """Changes one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x41
    path.write_bytes(content)


def test_partial_file_of_a_killed_writer_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "table"
    writer = start(tmp_path, WRITER, str(target), "half", "600")
    writer.kill()
    writer.communicate()
    assert names(tmp_path) == [".table.partial"]
    with atomic(target) as partial:
        partial.write_text("whole")
    assert names(tmp_path) == ["table"]
    assert target.read_text() == "whole"


def test_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    target = tmp_path / "table"
    writer = start(tmp_path, WRITER, str(target), "first", "0.5")
    with atomic(target) as partial:
        assert target.read_text() == "first"
        partial.write_text("second")
    assert writer.wait(30) == 0
    assert target.read_text() == "second"
    assert names(tmp_path) == ["table"]


NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
"""An array that takes 120 kB in every format."""
WRITERS: dict[str, Callable[[Path], object]] = {
    "Python": lambda path: path.write_bytes(NOISE.tobytes()),
    "NumPy": lambda path: np.save(path.open("wb"), NOISE),
    "pandas": lambda path: pd.DataFrame(NOISE[0]).to_csv(path),
    "pyarrow": lambda path: pq.write_table(pa.table({"noise": NOISE.ravel()}), path),
    "Pillow": lambda path: Image.fromarray(NOISE).save(path, "PNG"),
    "safetensors": lambda path: save_file({"noise": torch.from_numpy(NOISE)}, path),
    "torch": lambda path: torch.save({"noise": torch.from_numpy(NOISE)}, path.open("wb")),
    "FFCV": lambda path: write_split([(NOISE, 0)], path, RGBImageField()),
}


@contextmanager
def max_file_size(size: int) -> Iterator[None]:
    """Limits the size of files: writing fails as on a full disk, without root permissions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # it would be cut off, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = writes_bytecode


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("library", WRITERS)
def test_full_disk_is_reported_with_the_file_for_each_library(
    tmp_path: Path, library: str, size: int
) -> None:
    target = tmp_path / "folder" / "file"
    with (
        max_file_size(size),
        pytest.raises(OSError, match="File too large: make room") as refused,
        atomic(target) as partial,
    ):
        WRITERS[library](partial)
    assert refused.value.filename == str(target)
    assert names(tmp_path / "folder") == []


def test_other_errors_are_not_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not this"), atomic(tmp_path / "file"):
        raise ValueError("not this")
    with pytest.raises(FileNotFoundError) as missing, atomic(tmp_path / "file"):
        (tmp_path / "another").read_bytes()
    assert missing.value.filename == str(tmp_path / "another")
    assert names(tmp_path) == []


def test_no_changed_byte_of_a_table_is_read_as_another_value(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    rows = pd.DataFrame({"key": [f"face{row}" for row in range(300)], "number": range(300)})
    write_parquet(rows, path)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 29):
        path.write_bytes(whole)
        flip(path, place)
        try:
            assert read_parquet(path).to_dict("list") == rows.to_dict("list")
        except ValueError as error:
            assert f"{path}: damaged" in str(error)  # noqa: PT017  some bytes have no meaning
            refused += 1
    assert refused > len(whole) / 29 / 2


def test_changed_weight_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(
        path, {"layer": torch.arange(1000.0), "half": torch.ones((), dtype=torch.bfloat16)}, {"a": 1}
    )
    assert read_weights(path)[1] == {"a": 1}
    flip(path, -500)
    with pytest.raises(ValueError, match="changed since it was written"):
        read_weights(path)


def test_truncated_annotations_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("annotations.csv", "splits.csv"):
        shutil.copy(ROOT / "data/orl" / name, tmp_path)
    table = tmp_path / "annotations.csv"
    table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])
    monkeypatch.setattr(orl, "ANNOTATIONS", tmp_path)
    with pytest.raises(ValueError, match=r"annotations.csv: \d+ complete lines instead of 400: restore it"):
        list(orl.records(tmp_path, DatasetConfig(name="orl", adapter="orl")))


def test_stage_is_locked_while_it_runs_and_free_after_kill_9(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    first = start(tmp_path, STAGE)
    second = run(tmp_path, sys.executable, "-c", STAGE, PYTHONPATH=str(ROOT))
    assert second.returncode == 74
    assert "error: toy: another process is running toy in this folder" in second.stdout
    first.kill()
    first.communicate()
    third = start(tmp_path, STAGE)
    third.kill()
    third.communicate()


def test_stage_ends_after_kill_9_of_dvc(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STAGE!r}])"
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "DVC_STAGE": "toy"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "running\n"
    parent.kill()
    parent.wait()
    begin = time.monotonic()
    parent.stdout.read()  # until every process has closed it
    assert time.monotonic() - begin < 60


def test_too_little_memory_for_libraries_is_reported_in_one_line(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "prlimit",
        f"--as={300 * 2**20}",
        sys.executable,
        "-m",
        "pipelines.ingest",
        PYTHONPATH=str(ROOT),
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("error: out of memory")
    assert "Traceback" not in done.stdout


def test_missing_table_is_reported_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"none\.parquet: no such table: run `dvc repro`, which writes it"
    ):
        read_parquet(tmp_path / "none.parquet")
