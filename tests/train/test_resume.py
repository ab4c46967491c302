"""Runs in processes of their own, killed or stopped at random moments: the end is bit-identical."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fra.train.checkpoint import read_weights
from fra.train.watch import RESUME_ME

TOY = Path(__file__).with_name("toy.py")
OPTIONS = {"epochs": 6, "checkpoint_every": 3, "log_every": 1, "seconds_per_batch": 0.1}


def start(folder: Path, ranks: int) -> subprocess.Popen[bytes]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOY.parents[2])}
    (folder / "running").unlink(missing_ok=True)
    return subprocess.Popen(
        [*launcher, str(TOY), str(folder), json.dumps(OPTIONS)], env=environment, stderr=subprocess.PIPE
    )


def finish(folder: Path, ranks: int) -> dict[str, torch.Tensor]:
    process = start(folder, ranks)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return read_weights(folder / "out" / "model.safetensors")[0]


def descendants(pid: int) -> list[int]:
    """Of a process on Linux, itself first; torchrun's ranks are in sessions of their own."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(found for child in children for found in descendants(int(child)))]


def runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "blows"), [(1, ["everything", "stop"]), (2, ["everything", "one", "launcher"])]
)
def test_interrupted_in_every_way_a_run_ends_bit_identical(
    ranks: int, blows: list[str], tmp_path: Path
) -> None:
    """kill -9 of everything, of one rank, or of the launcher alone (its ranks save and end); or a stop
    signal."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    folder = tmp_path / "broken"
    chance = random.Random(0)
    for blow in blows:
        process = start(folder, ranks)
        while not (folder / "running").exists():
            assert process.poll() is None, "ended too early"
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        tree = descendants(process.pid)
        assert len(tree) == (1 if ranks == 1 else 1 + ranks)
        victims = {"everything": tree, "one": tree[-1:], "launcher": tree[:1], "stop": tree[:1]}[blow]
        for pid in victims:
            os.kill(pid, signal.SIGTERM if blow == "stop" else signal.SIGKILL)
        process.communicate(timeout=60)  # returns once the ranks, which share its stderr, are gone too
        assert process.returncode != 0, f"{blow}: the run was over already"
        assert not any(runs(pid) for pid in tree)
        assert not (folder / "out").exists()
        if blow == "stop":
            assert process.returncode == RESUME_ME
    found, expected = finish(folder, ranks), finish(tmp_path / "whole", ranks)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
