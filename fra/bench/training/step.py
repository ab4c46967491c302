"""Our training step compared with a plain one (`fra.bench.training.plain_step`): same weights, same batch, in turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fra.bench.measure import alternate, check_rounds, compared, device_name, measure, seconds_of
from fra.bench.peers.process import Peer, running
from fra.bench.training.contenders import BYOL_OBJECTIVE, FRA_OBJECTIVE, our_step, plain
from fra.bench.training.setup import Setup
from fra.method.config import ModelConfig

DATASHEET_FLOPS = {
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
}
"""Dense bfloat16 peak in FLOP/s by device name; for other devices a large matrix product is measured."""


def compare_steps(
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    rounds: int = 5,
    device: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Compares both steps in `rounds` alternating rounds after a warm-up of each.

    Returns:
        `baseline` (plain) and `ours` in images/s, medians over the rounds, `ratio` and `cpu_ratio`; the peak memory of
        a step beyond the networks (`baseline_peak_mib`, `ours_peak_mib`); `flops_per_step`, counted by PyTorch; and the
        model FLOPs utilisation of both (`baseline_mfu`, `ours_mfu`), their FLOP/s as a fraction of `peak_flops`.

    Raises:
        ValueError: Fewer than one round or two images.
    """
    check_rounds(rounds, batch_size)
    setup = Setup.of(model, image_size, batch_size, device)
    views = setup.views()
    steps: dict[str, Callable[[], object]] = {
        "baseline": partial(plain(setup), *views),
        "ours": partial(our_step(setup, compiled=compiled), *views),
    }
    with FlopCounterMode(display=False) as counter:
        steps["baseline"]()
    steps["ours"]()
    works = {name: partial(measure, setup.work(step), setup.device) for name, step in steps.items()}
    taken = compared(alternate(works, rounds))
    flops, (peak, source) = counter.get_total_flops(), peak_flops(setup.device, setup.precision)
    return {
        **taken,
        "flops_per_step": flops,
        "peak_flops": peak,
        "peak_flops_source": source,
        **{f"{name}_mfu": flops * float(taken[name]) / batch_size / peak for name in steps},
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

    lightly has no regions: it is compared with our step without them (BYOL).

    Returns:
        `baseline` (the peer) and `ours` in images/s, medians over the rounds, `ratio` and `cpu_ratio`; the peak memory
        of a step beyond the networks.

    Raises:
        ValueError: Fewer than one round or two images.
        RuntimeError: The peer cannot be installed or fails.
    """
    check_rounds(rounds, batch_size)
    setup = Setup.of(model, image_size, batch_size, device)
    objective = BYOL_OBJECTIVE if peer.name == "lightly" else FRA_OBJECTIVE
    ours = setup.work(partial(our_step(setup, objective, compiled=compiled), *setup.views()))
    list(ours())
    with running(peer, setup.settings()) as baseline:
        taken = alternate({"baseline": baseline, "ours": partial(measure, ours, setup.device)}, rounds)
    return {**compared(taken), "peer": peer.name, **setup.description(), "rounds": rounds}


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
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    product()
    return 2 * size**3 / min(seconds_of(product) for _ in range(5)), "measured"
