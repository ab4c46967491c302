"""Runs a command so that none of its processes outlives the process that started it.

    python -m pipelines.orchestration.supervise COMMAND…    (standard input: a pipe that the parent keeps open)

A signal to `dvc repro` alone leaves the stage that it started running and writing. So the command gets a session of
its own. When this process gets a stop signal, or when the pipe closes because the parent has ended (even by kill -9),
the whole group gets SIGTERM, `GRACE` seconds to save its work, and then SIGKILL. The exit code is the command's.
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
"""Seconds from SIGTERM to SIGKILL. Prefect kills a cancelled run's process after 30 s, so this must be shorter."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan below it, so that it can wait for them (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_on_parent_death(number: int) -> None:
    """Has this process receive the signal `number` when its parent ends, even by kill -9 (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def reap() -> dict[int, int] | None:
    """Collects every child that has ended: exit code by process id. None if there is no child left."""
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
    """Returns the process ids of this process's children: the command, and adopted orphans (Linux only)."""
    with contextlib.suppress(OSError):
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    return set()


def terminate(group: int) -> None:
    """Sends SIGTERM to the process group and all orphans, and SIGKILL after `GRACE` s; returns when all have ended."""
    signalled: set[int] = set()
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        signalled.add(group)
    while reap() is not None:
        expired = time.monotonic() > deadline
        # A process that left the group is signalled once it is an orphan: until then its own parent can do it.
        for process in children() if expired else children() - signalled:
            os.kill(process, signal.SIGKILL if expired else signal.SIGTERM)
            signalled.add(process)
        if expired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        time.sleep(0.05)


def forward(source: int) -> None:
    """Copies a file descriptor to standard output until its last writer ends; drops what cannot be written."""
    while chunk := os.read(source, 65536):
        with contextlib.suppress(OSError):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]


def main(command: list[str]) -> int:
    """Runs the command to its end, or until a stop signal or the parent's end; returns the exit code."""
    adopt_orphans()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: received.append(number))
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # wakes select
    # Its output goes through this process, so that a command whose reader died can still write while it saves.
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
        if received or (0 in ready and not os.read(0, 4096)):
            break
        code = (reap() or {}).get(process.pid)
    terminate(process.pid)
    output.join(1)
    return 128 + signal.SIGTERM if code is None else code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m pipelines.orchestration.supervise COMMAND…")
    sys.exit(main(sys.argv[1:]))
