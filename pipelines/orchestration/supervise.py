"""Runs a command so that nothing of it outlives its parent.

    python -m pipelines.orchestration.supervise COMMAND…    (standard input: a pipe that the parent keeps open)

A signal to `dvc repro` alone leaves the stage that it started running and writing. So the command gets a session of
its own; when this process is told to stop, or the pipe closes because the parent is gone (even by kill -9), the
whole group gets SIGTERM, `GRACE` seconds to save its work, and SIGKILL. Ends with the command's exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE = 20.0
"""Seconds from SIGTERM to SIGKILL: Prefect allows 30 from cancelling a run to its end, and then kills this process."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan below it, so that it can wait for them (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(number: int) -> None:
    """This process gets the signal `number` when the one that started it dies, even by kill -9 (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def reap() -> dict[int, int] | None:
    """Collects every child that ended: exit code by process id. None once there is no child left."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended or None
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def children() -> set[int]:
    """Whoever has this process for a parent: the command, and orphans from below it (Linux only)."""
    with contextlib.suppress(OSError):
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    return set()


def end(group: int) -> None:
    """SIGTERM to all that is left, and SIGKILL after `GRACE` seconds; returns once everything is gone."""
    told: set[int] = set()
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        told.add(group)
    while reap() is not None:
        over = time.monotonic() > deadline
        # Who left the group is told once it is an orphan: until then it has a parent to tell it.
        for process in children() if over else children() - told:
            os.kill(process, signal.SIGKILL if over else signal.SIGTERM)
            told.add(process)
        if over:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        time.sleep(0.05)


def forward(source: int) -> None:
    """Copies to standard output until the last writer is gone; what nobody reads any more is dropped."""
    while chunk := os.read(source, 65536):
        with contextlib.suppress(OSError):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]


def main(command: list[str]) -> int:
    adopt_orphans()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: told.append(number))
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # wakes select
    # Through this process, so that a command whose reader died can still write while it saves its work.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    output = threading.Thread(target=forward, args=(process.stdout.fileno(),), daemon=True)
    output.start()
    code: int | None = None
    while code is None:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        if told or (0 in ready and not os.read(0, 4096)):
            break
        code = (reap() or {}).get(process.pid)
    end(process.pid)
    output.join(1)
    return 128 + signal.SIGTERM if code is None else code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m pipelines.orchestration.supervise COMMAND…")
    sys.exit(main(sys.argv[1:]))
