"""Where jobs run (writing shards, searching photographs): processes of this machine, or the caller's executor."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import Lock
from typing import Protocol, Self, TypeVar

from fra.parallel import available_cores


class Job(Protocol):
    """A part of the work that runs in one process."""

    def absolute(self) -> Self:
        """The job with absolute paths, for a process whose current folder is another one."""
        ...


J = TypeVar("J", bound=Job)


class Executor(Protocol):
    """Runs a function on every job, in any order and place, and yields its results: the number of images done."""

    def __call__(self, function: Callable[[J], int], jobs: Sequence[J], /) -> Iterable[int]:
        """Runs `function` on every job."""
        ...


QUEUED_PER_WORKER = 3
"""Jobs queued for each worker: enough to keep it busy, few enough to keep memory small."""


def die_with_parent() -> None:
    """Makes the kernel kill this worker when its parent dies; it would otherwise write into the next run's folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def check_locks() -> None:
    """Checks that processes can share a lock, as those that write shards and betons do.

    Raises:
        OSError: /dev/shm does not allow it.
    """
    try:
        Lock()
    except OSError as error:  # Python names no file
        remedy = (
            "processes keep the locks that they share there: let every user write to it (chmod 1777 /dev/shm)"
        )
        raise OSError(error.errno, f"{error.strerror}: {remedy}", "/dev/shm") from None


def worker_count(workers: int) -> int:
    """The number of workers that a setting means: 0 is one for each core that this process may use."""
    return workers or available_cores()


def local(workers: int) -> Executor:
    """An executor that runs jobs in `workers` processes of this machine (0: one per core)."""

    def execute(function: Callable[[J], int], jobs: Sequence[J]) -> Iterator[int]:
        count = min(worker_count(workers), len(jobs))
        if count <= 1:
            yield from map(function, jobs)
            return
        with ProcessPoolExecutor(count, initializer=die_with_parent) as pool:
            queue = iter(jobs)
            running: set[Future[int]] = {
                pool.submit(function, job) for job in islice(queue, QUEUED_PER_WORKER * count)
            }
            try:
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {pool.submit(function, job) for job in islice(queue, len(done))}
                    for future in done:
                        yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return execute
