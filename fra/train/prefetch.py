"""From the loader to the device: views made ahead of the step that needs them, and the time spent waiting."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fra import dist
from fra.data.loader.protocol import Loader
from fra.data.views.views import Crops, Views

T = TypeVar("T")


class Batch(NamedTuple):
    """Two normalised views of B images, on the device, and the images' indices (B,), on the CPU."""

    index_B: Tensor
    view1_B3HW: Tensor
    view2_B3HW: Tensor


def check_batch_size(batch: Batch, batch_size: int) -> None:
    """Raises ValueError unless the shares of all ranks make up `batch_size` images."""
    ranks = dist.world_size()
    images = len(batch.view1_B3HW) * ranks
    if images != batch_size:
        raise ValueError(
            f"train.batch_size is {batch_size}, but {ranks} loader(s) gave {images} images: "
            f"build each with batch_size = {batch_size} / {ranks}"
        )


def prefetch(
    loader: Loader, views: Views, epoch: int, start_step: int, device: torch.device
) -> Generator[Batch, None, None]:
    """Yields the batches of an epoch from `start_step` on; for a GPU each is made ahead in a thread."""

    def make(crops: Crops) -> Batch:
        return Batch(crops.index_B, *views(crops, epoch, device))

    made = map(make, loader.epoch(epoch, start_step))
    if device.type == "cuda":
        yield from _one_ahead(made, device)
    else:
        yield from made


def _one_ahead(made: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the same batches, the next one being made meanwhile in its own thread and CUDA stream.

    A batch is yielded once its copy to the GPU has finished: the loader may then reuse its memory, and waiting for the
    copy counts as waiting for data.
    """
    stream = _copy_stream(device)

    def fetch() -> Batch | None:
        with torch.cuda.stream(stream):
            batch = next(made, None)
        stream.synchronize()
        return batch

    with ThreadPoolExecutor(1, "prefetch") as executor:
        future = executor.submit(fetch)
        while (batch := future.result()) is not None:
            for view in (batch.view1_B3HW, batch.view2_B3HW):
                view.record_stream(torch.cuda.current_stream(device))
            future = executor.submit(fetch)
            yield batch


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Returns one stream for all epochs, since PyTorch caches memory per stream; its work has priority on the GPU."""
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


class Lap(NamedTuple):
    """Seconds and steps between two readings of a `StepTimer`, and the seconds of them spent waiting for data."""

    seconds: float
    seconds_waiting: float
    steps: int


class StepTimer:
    """Measures time per step, and how much of it is spent waiting for data.

    Args:
        step: The number of steps done when the timer starts.
    """

    def __init__(self, step: int) -> None:
        self._start = time.perf_counter()
        self._step = step
        self._waiting = 0.0

    def time_waiting(self, items: Iterator[T]) -> Iterator[T]:
        """Yields the same items; the time until each arrives counts as waiting."""
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._waiting += time.perf_counter() - start
            yield item

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time spent in its block."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def lap(self, step: int) -> Lap:
        """Returns the time since the last call (or the start), `step` steps being done now."""
        now = time.perf_counter()
        lap = Lap(now - self._start, self._waiting, step - self._step)
        self._start, self._step, self._waiting = now, step, 0.0
        return lap
