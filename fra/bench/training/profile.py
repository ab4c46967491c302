"""What a training step spends its time on, by kind of operation.

Two steps from the same weights on one thread: ours, and the plain one in the channels-last layout, which is the peer
`plain-autocast` of `fra bench step` where autocast computes in float32.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from fra.bench.training.contenders import our_step, plain
from fra.bench.training.setup import Setup
from fra.method.config import ModelConfig
from fra.parallel import torch_threads

KINDS = {
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
}
"""PyTorch's operations by kind; all others are counted as "everything else"."""


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Returns the share of each kind of operation in the time, given the time of each operation by itself."""
    kind_of = {operation: kind for kind, operations in KINDS.items() for operation in operations}
    total: Counter[str] = Counter()
    for operation, taken in seconds.items():
        total[kind_of.get(operation, "everything else")] += taken  # type: ignore[assignment]
    return {kind: total[kind] / sum(seconds.values()) for kind in (*KINDS, "everything else")}


def least_cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """Returns the least CPU seconds of some calls, which other work on the machine disturbs least."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def peak_flops_per_cpu_second(size: int = 2048) -> float:
    """Returns the FLOPs that a large matrix product reaches in a CPU second: the best of ten."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / least_cpu_seconds(partial(torch.mm, a, b), 10)


def profile_step(step: Callable[[], object], repeats: int = 2) -> tuple[float, int, dict[str, float]]:
    """Returns the CPU seconds of a step (the least of some), its FLOPs, and the shares of its time."""
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = least_cpu_seconds(step, repeats)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    by_operation = {each.key: each.self_cpu_time_total for each in profiler.key_averages()}
    return seconds, counter.get_total_flops(), shares(by_operation)


def steps(model: ModelConfig, image_size: int, batch_size: int) -> dict[str, Callable[[], object]]:
    """Returns our step and the plain one in the channels-last layout, on the CPU, each on networks of its own."""
    setup = Setup.of(model, image_size, batch_size, "cpu", "float32")
    channels_last = torch.channels_last
    return {
        "ours": partial(our_step(setup), *setup.views()),
        "plain, channels-last": partial(plain(setup, channels_last), *setup.views(channels_last)),
    }


def profile_steps(model: ModelConfig, image_size: int, batch_size: int) -> list[dict[str, Any]]:
    """Returns a row for each step: CPU seconds, GFLOP, rate as a share of the peak, and the share of each kind."""
    rows = []
    with torch_threads(1):
        for name, step in steps(model, image_size, batch_size).items():
            seconds, flops, parts = profile_step(step)
            of_peak = flops / seconds / peak_flops_per_cpu_second()
            rows.append(
                {"step": name, "cpu_seconds": seconds, "gflop": flops / 1e9, "of_peak": of_peak, **parts}
            )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    kinds = [*KINDS, "everything else"]
    lines = [
        f"| Step | CPU s | GFLOP | of the peak | {' | '.join(kinds)} |",
        "| --- " * (4 + len(kinds)) + "|",
    ]
    for row in rows:
        numbers = [f"{row['cpu_seconds']:.2f}", f"{row['gflop']:.0f}", f"{row['of_peak']:.0%}"]
        lines.append(f"| {row['step']} | {' | '.join([*numbers, *(f'{row[kind]:.1%}' for kind in kinds)])} |")
    return "\n".join(lines)
