"""Processes that keep the cores busy, and threads that want one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

SAMPLING = 0.02
"""Seconds between two counts of the runnable threads."""
LOOP = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
while True:
    pass
"""
"""A busy loop that ends with the process that started it, even if that is killed: its standard input is closed then."""


@contextmanager
def busy_loops(count: int) -> Iterator[list[int]]:
    """Keeps `count` processes busy in its block, and yields their process IDs.

    They belong to the session of this process, since Linux may share out the cores by session.
    """
    loops: list[int] = []
    with ExitStack() as stack:
        for _ in range(count):
            command = [sys.executable, "-I", "-S", "-c", LOOP]
            loop = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            )
            stack.callback(loop.kill)
            loops.append(loop.pid)
        yield loops


def cpu_seconds_of(loops: Sequence[int]) -> float:
    """Returns the CPU seconds of running processes (Linux)."""
    ticks = sum(
        int(number)
        for loop in loops
        for number in Path(f"/proc/{loop}/stat").read_text().rpartition(")")[2].split()[11:13]
    )
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def runnable_threads(counts: list[int]) -> Iterator[None]:
    """Adds to `counts`, again and again, how many of this process's threads run or wait for a core (Linux)."""
    ended = threading.Event()

    def count() -> None:
        while not ended.wait(SAMPLING):
            counts.append(sum(map(_runnable, Path("/proc/self/task").iterdir())) - 1)  # not this thread

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _runnable(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:  # it has ended
        return False


def fair_loss(threads: float, loops: int, available: int) -> float:
    """Returns how many times longer work takes when busy loops get their fair share of the cores.

    A core is shared out equally among runnable threads. Next to L loops, T threads on C cores get
    min(T, C, T · C / (T + L)) cores, of the min(T, C) that they have alone; the quotient is returned.

    Args:
        threads: Average number of runnable threads of the work when it runs alone.
        loops: Number of busy loops.
        available: Number of cores.
    """
    return min(threads, available) / min(threads, available, threads * available / (threads + loops))
