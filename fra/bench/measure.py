"""Measuring in alternating rounds, and the form in which every benchmark returns its result."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import torch

Work: TypeAlias = Callable[[], Iterable[int]]
"""Work to be measured; it yields the number of items (images) of each part, such as a batch."""
T = TypeVar("T")


class Measurement(NamedTuple):
    """Number of items, and the wall and CPU seconds they took (this process and its children)."""

    items: int
    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(work: Work) -> Measurement:
    """Runs `work` to its end."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    items = sum(work())
    return Measurement(items, time.perf_counter() - wall, cpu_seconds() - cpu)


def seconds_of(call: Callable[[], object]) -> float:
    """Returns the wall seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Calls every contender once per round, so that all of them meet the same state of the machine.

    Returns:
        What each contender returned, one value per round.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            results[name].append(call())
    return results


def items_per_second(measurements: Sequence[Measurement]) -> float:
    """Returns the median over rounds of items per wall second."""
    return statistics.median(one.items / one.wall for one in measurements)


def cpu_seconds_per_item(measurements: Sequence[Measurement]) -> float:
    """Returns the median over rounds of CPU seconds per item."""
    return statistics.median(one.cpu / one.items for one in measurements)


def comparison(baseline: float, ours: float, unit: str = "images/s") -> dict[str, float | str]:
    """Returns the keys that every benchmark has: two rates, and how many times faster ours is."""
    return {"baseline": baseline, "ours": ours, "ratio": ours / baseline, "unit": unit}


def check_rounds(rounds: int, batch_size: int) -> None:
    """Raises ValueError for fewer than one round or two images per batch."""
    if rounds < 1 or batch_size < 2:
        raise ValueError(
            f"rounds must be at least 1 and batch_size at least 2, got {rounds} and {batch_size}"
        )


def device_name(device: torch.device) -> str:
    """Returns the name of a GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
