"""Work next to busy processes: these end with what started them, and fair shares of the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fra.bench.busy.loops import busy_loops, cpu_seconds_of, fair_loss

KILLED = """
import sys, time
from fra.bench.busy.loops import busy_loops
with busy_loops(2) as loops:
    print(*loops, flush=True)
    time.sleep(60)
"""


def gone(process: int) -> bool:
    """Whether a process has ended; one that nothing has waited for yet counts as ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_loops_are_busy_and_end_if_the_block_fails() -> None:
    def interrupted() -> None:
        with busy_loops(2) as started:
            loops.extend(started)
            while any(cpu_seconds_of([loop]) < 0.05 for loop in loops):
                time.sleep(0.02)
            raise KeyboardInterrupt

    loops: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [gone(loop) for loop in loops] == [True, True]


def test_loops_end_with_a_killed_process() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        loops = [int(loop) for loop in process.stdout.readline().split()]
        os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while not all(map(gone, loops)) and time.monotonic() < end:
        time.sleep(0.02)
    assert [gone(loop) for loop in loops] == [True, True]


def test_fair_loss() -> None:
    assert fair_loss(1, 4, 2) == 2.5  # one of five threads on two cores: 0.4 instead of one
    assert fair_loss(2, 4, 2) == 3
    assert fair_loss(4, 4, 2) == 2
    assert fair_loss(1, 1, 2) == 1


@pytest.mark.slow
def test_both_works_are_measured() -> None:
    from fra.bench.busy.compare import measure_busy

    found = measure_busy(loops=1, images=64, epochs=1, rounds=1)
    for work in ("embedding", "training"):
        assert found[f"{work}_lost"] == found[f"{work}_busy"] / found[f"{work}_alone"]
        assert found[f"{work}_threads"] >= 1
        assert 0.2 < found[f"{work}_lost_over_share"] < 5
