"""Work on all cores: items in parallel, each in one thread, so that no thread waits for another.

PyTorch's own threads meet after every operation. On a machine with other work each waits for the one that was
interrupted, and small operations gain nothing from several threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
U = TypeVar("U")


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> int:
    """Returns the number of threads for computing: `available_cores`, at most OMP_NUM_THREADS where it is set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cores(), int(limit)) if limit.isdecimal() and int(limit) else available_cores()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets the number of PyTorch's threads within its block."""
    import torch  # what only reads images starts without it

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def opencv_in_one_thread() -> Iterator[None]:
    """Lets OpenCV compute in the calling threads only: several images are processed in parallel instead."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def map_ahead(
    function: Callable[[T], U], items: Iterable[T], count: int, threads: int | None = None
) -> Generator[U, None, None]:
    """Yields `function` of every item in order, computed by threads at most `count` items ahead.

    Close it (`contextlib.closing`) where `function` writes: it then waits for the items that threads are working on.
    """
    with ThreadPoolExecutor(threads or available_cores()) as pool:
        source = iter(items)
        waiting: deque[Future[U]] = deque(pool.submit(function, item) for item in islice(source, count))
        try:
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


def map_batches(
    function: Callable[[T], U], batches: Iterable[T], device: torch.device
) -> Generator[U, None, None]:
    """Yields `function` of every batch in order; on the CPU several at a time, each in one of PyTorch's threads.

    A single batch is computed by all of PyTorch's threads. `function` runs in other threads, so it enters
    `torch.inference_mode` itself.
    """
    import torch

    source = iter(batches)
    first = list(islice(source, 2))
    threads = torch.get_num_threads() if device.type == "cpu" and len(first) == 2 else 1
    if threads == 1:
        yield from map(function, chain(first, source))
        return
    with (
        torch_threads(1),
        closing(map_ahead(function, chain(first, source), threads + 1, threads)) as results,
    ):
        yield from results
