"""Who writes the shards: processes of this machine, or whatever the caller brings (a cluster's workers)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import Lock

from fra.data.shards.tar import Job

Spread = Callable[[Callable[[Job], int], Sequence[Job]], Iterable[int]]
"""Runs a function on every job, anywhere and in any order, and yields what it returned: images done."""
AHEAD = 3
"""Shards that wait for each process: enough to keep it busy, few enough to keep memory small."""


def die_with_parent() -> None:
    """A worker must not outlive a killed run: it would go on writing into what the next run writes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def check_locks() -> None:
    """Raises OSError where processes cannot share a lock, as those that write shards and betons do."""
    try:
        Lock()
    except OSError as error:  # Python names no file
        remedy = (
            "processes keep the locks that they share there: let every user write to it (chmod 1777 /dev/shm)"
        )
        raise OSError(error.errno, f"{error.strerror}: {remedy}", "/dev/shm") from None


def processes(workers: int) -> int:
    """How many processes `workers` asks for: 0 = as many as this process may use cores."""
    return workers or len(os.sched_getaffinity(0))


def local(workers: int) -> Spread:
    """Writes shards in processes of this machine."""

    def spread(work: Callable[[Job], int], jobs: Sequence[Job]) -> Iterator[int]:
        count = min(processes(workers), len(jobs))
        if count <= 1:
            yield from map(work, jobs)
            return
        with ProcessPoolExecutor(count, initializer=die_with_parent) as pool:
            waiting = iter(jobs)
            running: set[Future[int]] = {pool.submit(work, job) for job in islice(waiting, AHEAD * count)}
            try:
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {pool.submit(work, job) for job in islice(waiting, len(done))}
                    for future in done:
                        yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return spread
