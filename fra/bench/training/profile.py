"""What a training step spends its time on: `python -m fra.bench.training.profile resnet18 112 32`.

Two steps from the same weights on one thread: ours, and the plain one in the channels-last layout, which is the peer
`plain-autocast` of `fra bench step` where autocast computes in float32.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from fra.bench.training.plain_step import PlainLARS, plain_step
from fra.bench.training.setup import Setup
from fra.bench.training.step import our_step
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import build
from fra.parallel import torch_threads
from fra.train import optim

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
    torch.manual_seed(0)
    ours, plain = (build(model, ObjectiveConfig()).train() for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    plain.to(memory_format=torch.channels_last)
    lars = PlainLARS(optim.adaptation_groups(plain.trained_parameters()))
    return {
        "ours": partial(our_step(ours, setup.device, setup.precision, False), *setup.views()),
        "plain, channels-last": partial(plain_step, plain, lars, *setup.views(torch.channels_last)),
    }


def main() -> None:
    """Prints a Markdown table with a row for each step."""
    parser = argparse.ArgumentParser(prog="python -m fra.bench.training.profile")
    parser.add_argument("backbone")
    parser.add_argument("image_size", type=int)
    parser.add_argument("batch_size", type=int)
    asked = parser.parse_args()
    print("| Step | CPU s | GFLOP | of the peak |", " | ".join((*KINDS, "everything else")), "|")
    print("| --- " * (5 + len(KINDS)) + "|")
    compared = steps(ModelConfig(backbone=asked.backbone), asked.image_size, asked.batch_size)
    with torch_threads(1):
        for name, step in compared.items():
            seconds, flops, parts = profile_step(step)
            of_peak = flops / seconds / peak_flops_per_cpu_second()
            shown = [f"{seconds:.2f}", f"{flops / 1e9:.0f}", f"{of_peak:.0%}"]
            print(f"| {name} |", " | ".join([*shown, *(f"{part:.1%}" for part in parts.values())]), "|")


if __name__ == "__main__":
    main()
