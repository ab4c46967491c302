"""The cost of regions: a training step of FRA compared with one at image level (BYOL), with the same networks."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fra.bench.measure import alternate, check_rounds, comparison, measure
from fra.bench.training.setup import Setup
from fra.bench.training.step import IMAGE_LEVEL
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import build
from fra.train import optim
from fra.train.step import TrainStep

OBJECTIVES = {"baseline": IMAGE_LEVEL, "ours": ObjectiveConfig()}
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
    setup = Setup.of(model, image_size, batch_size, device, precision)
    steps = {name: _step(setup, objective) for name, objective in OBJECTIVES.items()}
    flops, calls = {}, {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        with OperationCounter() as operations:
            step()
        flops[name], calls[name] = counter.get_total_flops(), operations.calls

    works = {name: partial(measure, setup.work(step), release=False) for name, step in steps.items()}
    taken = alternate(works, rounds)
    seconds = {name: statistics.median(each.wall for each in found) for name, found in taken.items()}
    used = {name: statistics.median(each.cpu for each in found) for name, found in taken.items()}
    costs = seconds if setup.device.type == "cuda" else used
    return {
        **comparison(batch_size / seconds["baseline"], batch_size / seconds["ours"]),
        "cost": costs["ours"] / costs["baseline"],
        "cost_in_flops": flops["ours"] / flops["baseline"],
        **{f"{name}_cpu_seconds": value for name, value in used.items()},
        **{f"{name}_calls": value for name, value in calls.items()},
        **setup.description(),
        "rounds": rounds,
    }


def _step(setup: Setup, objective: ObjectiveConfig) -> Callable[[], object]:
    """Returns a training step on a fixed pair of views."""
    torch.manual_seed(0)
    train_step = TrainStep(build(setup.model, objective), setup.device, setup.precision)
    optimizer = optim.adamw(train_step.model.trained_parameters(), lr=1e-3, weight_decay=0.01)
    return partial(
        train_step, *setup.views(), optimizer, lr=1e-3, target_momentum=0.99, prototype_momentum=0.9
    )


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
