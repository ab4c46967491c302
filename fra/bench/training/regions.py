"""The cost of regions: a training step of FRA compared with one at image level (BYOL), with the same networks."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fra import dist
from fra.bench.measure import alternate, check_rounds, comparison, device_name, measure
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import build
from fra.train import optim
from fra.train.step import TrainStep, choose_precision

OBJECTIVES = {
    "baseline": ObjectiveConfig(global_weight=1.0, region_weight=0.0, relation_weight=0.0),
    "ours": ObjectiveConfig(),
}
"""The image-level baseline, and FRA."""


def compare_regions(
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    rounds: int = 20,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Measures both steps with AdamW in `rounds` alternating rounds of one step each, after two of each.

    Returns:
        `baseline` (image level) and `ours` (FRA) in images/s, medians over the rounds, and `ratio`; `cost`, the CPU
        seconds of an FRA step over those of an image-level step (on a GPU: seconds), which other work on the machine
        disturbs less; `cost_in_flops`, the same by counted FLOPs; `baseline_calls` and `ours_calls`, the number of
        PyTorch's operations in a step.

    Raises:
        ValueError: Fewer than one round or two images.
    """
    check_rounds(rounds, batch_size)
    chosen = dist.choose_device(device)
    dtype = choose_precision(precision, chosen)
    steps = {
        name: _step(model, objective, image_size, batch_size, chosen, dtype)
        for name, objective in OBJECTIVES.items()
    }
    flops, calls = {}, {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        with OperationCounter() as operations:
            step()
        flops[name], calls[name] = counter.get_total_flops(), operations.calls

    def one(step: Callable[[], object]) -> list[int]:
        step()
        if chosen.type == "cuda":
            torch.cuda.synchronize(chosen)
        return [batch_size]

    taken = alternate({name: partial(measure, partial(one, step)) for name, step in steps.items()}, rounds)
    seconds = {name: statistics.median(each.wall for each in found) for name, found in taken.items()}
    used = {name: statistics.median(each.cpu for each in found) for name, found in taken.items()}
    costs = seconds if chosen.type == "cuda" else used
    return {
        **comparison(batch_size / seconds["baseline"], batch_size / seconds["ours"]),
        "cost": costs["ours"] / costs["baseline"],
        "cost_in_flops": flops["ours"] / flops["baseline"],
        **{f"{name}_cpu_seconds": value for name, value in used.items()},
        **{f"{name}_calls": value for name, value in calls.items()},
        **asdict(model),
        "image_size": image_size,
        "batch_size": batch_size,
        "rounds": rounds,
        "device": device_name(chosen),
        "threads": torch.get_num_threads(),
        "precision": str(dtype).removeprefix("torch."),
    }


def _step(
    model: ModelConfig,
    objective: ObjectiveConfig,
    image_size: int,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
) -> Callable[[], object]:
    """Returns a training step on a fixed pair of views."""
    torch.manual_seed(0)
    train_step = TrainStep(build(model, objective), device, precision)
    optimizer = optim.adamw(train_step.model.trained_parameters(), lr=1e-3, weight_decay=0.01)
    view1, view2 = (torch.randn(batch_size, 3, image_size, image_size, device=device) for _ in range(2))
    return partial(train_step, view1, view2, optimizer, lr=1e-3, target_momentum=0.99, prototype_momentum=0.9)


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of PyTorch that run in its block, views included, in `calls`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts it."""
        self.calls += 1
        return func(*args, **(kwargs or {}))
