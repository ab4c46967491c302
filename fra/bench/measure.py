"""Measuring in alternating rounds, and the form in which every benchmark returns its result."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import torch

from fra.train.memory import free_memory

Work: TypeAlias = Callable[[], Iterable[int]]
"""Work to be measured; it yields the number of items (images) of each part, such as a batch."""
T = TypeVar("T")
CPU = torch.device("cpu")


class Measurement(NamedTuple):
    """What a round of work took.

    Attributes:
        items: Number of items.
        wall: Wall seconds.
        cpu: CPU seconds of this process and of its children that have ended.
        memory: Bytes of memory at its peak beyond those before: of this process, or on the GPU of those allocated.
    """

    items: int
    wall: float
    cpu: float
    memory: int


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(work: Work, device: torch.device = CPU, release: bool = True) -> Measurement:
    """Runs `work` to its end.

    Args:
        work: The work; on a GPU it ends when the GPU has finished.
        device: Where memory is measured.
        release: Whether unused memory of the CPU is returned to the system before, without which the peak is not that
            of the work. Getting it back takes part of the time of a small training step, which in training keeps it.
    """
    before = _start_of_memory(device, release)
    wall, cpu = time.perf_counter(), cpu_seconds()
    items = sum(work())
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return Measurement(items, wall, cpu, _peak_memory(device) - before)


def _start_of_memory(device: torch.device, release: bool) -> int:
    """Starts a new peak where that is wanted, and returns the bytes in use."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return reset_peak_memory() if release else process_memory("VmRSS")


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_memory("VmHWM")


def reset_peak_memory() -> int:
    """Returns unused memory to the system, resets the process's peak (Linux) and returns its memory in bytes."""
    free_memory(CPU)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return process_memory("VmRSS")


def process_memory(name: str) -> int:
    """Returns an entry of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


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


def compared(taken: Mapping[str, Sequence[Measurement]], unit: str = "images/s") -> dict[str, float | str]:
    """Returns the comparison of the contenders `baseline` and `ours` in wall seconds, CPU seconds and memory."""
    cpu = {name: cpu_seconds_per_item(taken[name]) for name in ("baseline", "ours")}
    return {
        **comparison(items_per_second(taken["baseline"]), items_per_second(taken["ours"]), unit),
        "cpu_ratio": cpu["baseline"] / cpu["ours"],
        **{f"{name}_cpu_seconds_per_item": value for name, value in cpu.items()},
        **{f"{name}_peak_mib": max(one.memory for one in taken[name]) / 2**20 for name in cpu},
    }


def check_rounds(rounds: int, batch_size: int) -> None:
    """Raises ValueError for fewer than one round or two images per batch."""
    if rounds < 1 or batch_size < 2:
        raise ValueError(
            f"rounds must be at least 1 and batch_size at least 2, got {rounds} and {batch_size}"
        )


def device_name(device: torch.device) -> str:
    """Returns the name of a GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
