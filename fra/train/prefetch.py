"""From the loader to the device: views made ahead of the step that needs them, and how long steps wait for
them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from fra.data.views.views import Crops, Views

T = TypeVar("T")


class Loader(Protocol):
    """Batches of this rank's share; the same epoch and start give the same batches."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]: ...


class Batch(NamedTuple):
    """Two normalised views of the images `index_B`; views on the device, index on the CPU."""

    index_B: Tensor
    view1_B3HW: Tensor
    view2_B3HW: Tensor


def batches(
    loader: Loader, views: Views, epoch: int, start_step: int, device: torch.device
) -> Generator[Batch, None, None]:
    """The batches of an epoch, from `start_step` on."""

    def make(crops: Crops) -> Batch:
        return Batch(crops.index_B, *views(crops, epoch, device))

    made = map(make, loader.epoch(epoch, start_step))
    if device.type == "cuda":
        yield from _one_ahead(made, device)
    else:
        yield from made


def _one_ahead(made: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copies to a GPU, and the views there, in a thread and a stream of their own: no step waits for
    either. A batch is handed on once it is there, so that the loader may use its memory again, and that a wait for it
    is seen as one."""
    side = _side_stream(device)

    def fetch() -> Batch | None:
        with torch.cuda.stream(side):
            batch = next(made, None)
        side.synchronize()
        return batch

    with ThreadPoolExecutor(1, "feed") as pool:
        coming = pool.submit(fetch)
        while (batch := coming.result()) is not None:
            for view in (batch.view1_B3HW, batch.view2_B3HW):
                view.record_stream(torch.cuda.current_stream(device))
            coming = pool.submit(fetch)
            yield batch


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs, as memory is kept by stream; what is needed next goes first on the GPU."""
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


class Clock:
    """Seconds and steps since the last lap, and how much of the time went into waiting for data."""

    def __init__(self, step: int) -> None:
        self._since = time.perf_counter()
        self._step = step
        self._waited = 0.0

    def timed(self, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each comes counts as waiting."""
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - start
            yield item

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside takes no time."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def lap(self, step: int) -> tuple[float, float, int]:
        """(seconds, seconds waited, steps) since the last call."""
        now = time.perf_counter()
        lap = (now - self._since, self._waited, step - self._step)
        self._since, self._step, self._waited = now, step, 0.0
        return lap
