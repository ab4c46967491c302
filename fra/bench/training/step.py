"""Our training step compared with a plain one (`fra.bench.training.plain_step`): same weights, same batch, in turns."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fra.bench.measure import (
    alternate,
    check_rounds,
    compared,
    comparison,
    device_name,
    measure,
    process_memory,
    reset_peak_memory,
)
from fra.bench.peers.process import Peer, running
from fra.bench.training.plain_step import PROTOTYPE_MOMENTUM, RECIPE, TARGET_MOMENTUM, PlainLARS, plain_step
from fra.bench.training.setup import Setup
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import FRA, build
from fra.train import optim
from fra.train.step import StepOutput, TrainStep

DATASHEET_FLOPS = {
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
}
"""Dense bfloat16 peak in FLOP/s by device name; for other devices a large matrix product is measured."""


IMAGE_LEVEL = ObjectiveConfig(global_weight=1.0, region_weight=0.0, relation_weight=0.0)
"""The objective of BYOL."""


class StepCost(NamedTuple):
    """Seconds of a call, and the bytes of memory at its peak beyond those in use before it."""

    seconds: float
    bytes: int


def compare_steps(
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    rounds: int = 5,
    device: str = "auto",
    precision: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Compares both steps in `rounds` alternating rounds after a warm-up of each.

    Returns:
        `baseline` (plain) and `ours` in images/s, medians over the rounds, `ratio`; the peak memory of a step beyond
        the networks (`baseline_step_bytes`, `ours_step_bytes`); `flops_per_step`, counted by PyTorch; and the model
        FLOPs utilisation of both (`baseline_mfu`, `ours_mfu`), their FLOP/s as a fraction of `peak_flops`.

    Raises:
        ValueError: Fewer than one round or two images.
    """
    check_rounds(rounds, batch_size)
    setup = Setup.of(model, image_size, batch_size, device, precision)
    chosen, dtype = setup.device, setup.precision
    plain, fast = both_steps(model, chosen, dtype, compiled)
    views = setup.views()
    baseline, ours = partial(plain, *views), partial(fast, *views)
    with FlopCounterMode(display=False) as counter:
        baseline()
    ours()
    costs = alternate(
        {"baseline": partial(cost_of, baseline, chosen), "ours": partial(cost_of, ours, chosen)}, rounds
    )
    flops = counter.get_total_flops()
    peak, source = peak_flops(chosen, dtype)
    seconds = {name: statistics.median(cost.seconds for cost in taken) for name, taken in costs.items()}
    return {
        **comparison(batch_size / seconds["baseline"], batch_size / seconds["ours"]),
        **{f"{name}_step_bytes": max(cost.bytes for cost in taken) for name, taken in costs.items()},
        "flops_per_step": flops,
        "peak_flops": peak,
        "peak_flops_source": source,
        **{f"{name}_mfu": flops / taken / peak for name, taken in seconds.items()},
        **setup.description(),
        "rounds": rounds,
    }


def compare_with_peer(
    peer: Peer,
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    rounds: int = 5,
    device: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Compares our step with a peer's in `rounds` alternating rounds of one step each after a warm-up.

    lightly has no regions: it is compared with our step at image level.

    Returns:
        `baseline` (the peer) and `ours` in images/s, medians over the rounds, `ratio` and `cpu_ratio`; the peak memory
        of a step on the CPU beyond the networks.

    Raises:
        ValueError: Fewer than one round or two images.
        RuntimeError: The peer cannot be installed or fails.
    """
    check_rounds(rounds, batch_size)
    setup = Setup.of(model, image_size, batch_size, device)
    torch.manual_seed(0)
    networks = build(model, IMAGE_LEVEL if peer.name == "lightly" else ObjectiveConfig())
    ours = setup.work(partial(our_step(networks, setup.device, setup.precision, compiled), *setup.views()))
    list(ours())
    with running(peer, setup.settings()) as baseline:
        taken = alternate({"baseline": baseline, "ours": partial(measure, ours)}, rounds)
    return {**compared(taken), "peer": peer.name, **setup.description(), "rounds": rounds}


def both_steps(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, compiled: bool
) -> tuple[Callable[[Tensor, Tensor], dict[str, float]], Callable[[Tensor, Tensor], StepOutput]]:
    """Returns the plain step and ours on a pair of views, each on its own networks with the same initial weights."""
    torch.manual_seed(0)
    plain_model = build(config, ObjectiveConfig()).to(device).train()
    ours = our_step(copy.deepcopy(plain_model), device, dtype, compiled)
    plain_lars = PlainLARS(optim.adaptation_groups(plain_model.trained_parameters()))
    return partial(plain_step, plain_model, plain_lars), ours


def our_step(
    networks: FRA, device: torch.device, dtype: torch.dtype, compiled: bool
) -> Callable[[Tensor, Tensor], StepOutput]:
    """Returns our training step with LARS on a pair of views."""
    train_step = TrainStep(networks, device, dtype, compiled=compiled)
    lars = optim.lars(networks.trained_parameters(), scales=None, **RECIPE)

    def step(view1: Tensor, view2: Tensor) -> StepOutput:
        return train_step(view1, view2, lars, RECIPE["lr"], TARGET_MOMENTUM, PROTOTYPE_MOMENTUM)

    return step


def cost_of(call: Callable[[], object], device: torch.device) -> StepCost:
    """Returns the time and memory of a call on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        start = time.perf_counter()
        call()
        torch.cuda.synchronize(device)
        return StepCost(time.perf_counter() - start, torch.cuda.max_memory_allocated(device) - before)
    before = reset_peak_memory()
    start = time.perf_counter()
    call()
    return StepCost(time.perf_counter() - start, process_memory("VmHWM") - before)


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Returns the peak FLOP/s and "datasheet" for known GPUs, or "measured" (the best of five matrix products)."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = device_name(device)
        if name in DATASHEET_FLOPS:
            return DATASHEET_FLOPS[name], "datasheet"
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        a @ b

    cost_of(product, device)
    return 2 * size**3 / min(cost_of(product, device).seconds for _ in range(5)), "measured"
