"""Sharding on a real Dask scheduler with two worker processes, one of which is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.serving import until
from support.workspace import ROOT, environment, few_faces

from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import write
from fra.data.shards.config import ShardConfig
from fra.data.shards.tar import ShardJob
from fra.files import sha256
from pipelines.project.executor import on_dask


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler: its address, and its two worker processes."""
    file = tmp_path / "scheduler.json"
    scheduler = [
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        file,
    ]
    worker = ["worker", "--no-nanny", "--nthreads", "1", "--no-dashboard", "--scheduler-file", file]
    with ExitStack() as stack:

        def start(command: Sequence[object]) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, command)],
                cwd=tmp_path,
                env={**environment(), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        start(scheduler)
        until(file.is_file, 60, "the scheduler's start")
        yield str(json.loads(file.read_text())["address"]), [start(worker), start(worker)]


def bytes_of(out: Path) -> dict[str, str]:
    files = [*(out / "shards").iterdir(), out / "manifest.parquet"]
    return {path.name: sha256(path) for path in files}


def test_shards_are_the_same_after_kill_9_of_a_worker(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)  # the workers run in another folder, and shards have relative names
    address, workers = cluster
    faces = few_faces(tmp_path / "faces")
    records = ingest(DatasetConfig("faces", "folder", str(faces)), tmp_path / "raw")

    def execute(work: Callable[[ShardJob], int], jobs: Sequence[ShardJob]) -> Iterator[int]:
        for number, done in enumerate(on_dask(address, workers=2)(work, jobs)):
            if number == 2:
                os.kill(workers[0].pid, signal.SIGKILL)
            yield done

    written = {}
    for name, how in {"here": None, "dask": execute}.items():
        out = Path(tmp_path.name) / name
        config = ShardConfig(images_per_shard=5, workers=1)
        table = write.write(
            records, faces, out / "shards", out / "manifest.parquet", config, out / "state", executor=how
        )
        written[name] = bytes_of(out)
    assert table["shard"].nunique() > 10
    assert workers[0].wait(10) == -signal.SIGKILL
    assert workers[1].poll() is None
    assert written["dask"] == written["here"]


def test_missing_scheduler_is_reported() -> None:
    with pytest.raises(ConnectionError, match=r"shard\.dask_address tcp://127\.0\.0\.1:9: no Dask scheduler"):
        list(on_dask("tcp://127.0.0.1:9", patience=2)(lambda job: 0, []))
