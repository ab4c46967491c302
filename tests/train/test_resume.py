"""Runs in separate processes, killed or stopped at random moments, end bit-identical to undisturbed ones."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import toy_training

from fra.train.checkpoint import Checkpoints
from fra.weights.files import read_weights

TOY = Path(toy_training.__file__)
OPTIONS = {"epochs": 6, "checkpoint_every": 3, "log_every": 1, "seconds_per_batch": 0.1}
MANY = {
    "epochs": 30,
    "checkpoint_every": 2,
    "log_every": 1,
    "optimizer": "adamw",
    "lr": 1e-3,
    "seconds_per_batch": 0.05,
}
KILLS = 20


def start(folder: Path, ranks: int, options: dict[str, Any] = OPTIONS) -> subprocess.Popen[bytes]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOY.parents[2])}
    for mark in ("started", "running"):
        (folder / mark).unlink(missing_ok=True)
    return subprocess.Popen(
        [*launcher, str(TOY), str(folder), json.dumps(options)], env=environment, stderr=subprocess.PIPE
    )


def wait_for(mark: Path, process: subprocess.Popen[bytes]) -> None:
    while not mark.exists():
        assert process.poll() is None, "ended too early"
        time.sleep(0.01)


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
def test_a_run_interrupted_in_any_way_ends_bit_identical(
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
        wait_for(folder / "running", process)
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
            assert process.returncode == os.EX_TEMPFAIL
    found, expected = finish(folder, ranks), finish(tmp_path / "whole", ranks)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def last_step(folder: Path) -> int:
    """Of the newest checkpoint; 0 where there is none."""
    names = [path.stem for path in Checkpoints(folder / "checkpoints").paths()]
    return int(names[-1].removeprefix("step-")) if names else 0


def end_of(folder: Path) -> dict[str, Any]:
    """All that a run is after its last step.

    Its results cannot be written, so that its last checkpoint stays; with the way free it then ends well.
    """
    (folder / "out").touch()  # a file where the folder should be
    process = start(folder, 1, MANY)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors.decode()
    assert "FileExistsError" in errors.decode()
    state = Checkpoints(folder / "checkpoints").load()
    assert state is not None
    (folder / "out").unlink()
    process = start(folder, 1, MANY)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    assert not (folder / "checkpoints").exists()
    return state


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All that a state holds at any depth, by name; tensors as their bytes."""
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(below, f"{name}/{key}")
    else:
        yield name, value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Names of what is not the same to the last bit."""
    one, other = dict(leaves(ours)), dict(leaves(theirs))
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    """kill -9 while it looks for checkpoints, trains, logs or saves: model, target, optimiser and history end
    bit-identical to those of a run that nothing disturbed."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir(), whole.mkdir()
    chance = random.Random(7)
    saved = []
    for step in sorted(chance.sample(range(100), KILLS)):
        process = start(killed, 1, MANY)
        wait_for(killed / "started", process)
        while last_step(killed) < step:
            assert process.poll() is None, "ended too early"
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "the run was over already"
        saved.append(last_step(killed))
    found, expected = end_of(killed), end_of(whole)
    print(f"{KILLS} kills; the newest checkpoint after each: {saved}, of {expected['step']} steps")
    assert saved == sorted(saved)
    for state in (found, expected):
        for row in state["history"]:
            del row["images_per_second"]
        del state["seconds"], state["seconds_waiting"]
    assert {"model", "optimizer", "step", "history"} <= expected.keys()
    assert any(name.startswith("target.") for name in expected["model"])
    assert differences(found, expected) == []
    ours, theirs = (read_weights(folder / "out" / "model.safetensors")[0] for folder in (killed, whole))
    assert differences(ours, theirs) == []
