"""The cost of regions: a training step of FRA compared with one without regions (BYOL), with the same networks."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fra.bench.measure import alternate, check_rounds, compared, measure
from fra.bench.training.contenders import ADAMW, BYOL_OBJECTIVE, FRA_OBJECTIVE, our_step
from fra.bench.training.setup import Setup
from fra.method.config import ModelConfig

OBJECTIVES = {"baseline": BYOL_OBJECTIVE, "ours": FRA_OBJECTIVE}


def compare_regions(
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    rounds: int = 20,
    device: str = "auto",
) -> dict[str, Any]:
    """Measures both steps with AdamW in `rounds` alternating rounds of one step each, after two of each.

    Returns:
        `baseline` (BYOL) and `ours` (FRA) in images/s, medians over the rounds, and `ratio`; `cost`, the CPU seconds of
        an FRA step over those of a BYOL step (on a GPU: seconds), which other work on the machine disturbs less;
        `cost_in_flops`, the same by counted FLOPs; `baseline_calls` and `ours_calls`, the number of PyTorch's
        operations in a step.

    Raises:
        ValueError: Fewer than one round or two images.
    """
    check_rounds(rounds, batch_size)
    setup = Setup.of(model, image_size, batch_size, device)
    views = setup.views()
    steps = {
        name: partial(our_step(setup, objective, ADAMW), *views) for name, objective in OBJECTIVES.items()
    }
    flops, calls = {}, {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        with OperationCounter() as operations:
            step()
        flops[name], calls[name] = counter.get_total_flops(), operations.calls

    works = {
        name: partial(measure, setup.work(step), setup.device, release=False) for name, step in steps.items()
    }
    taken = compared(alternate(works, rounds))
    by_time = "ratio" if setup.device.type == "cuda" else "cpu_ratio"
    return {
        **taken,
        "cost": 1 / float(taken[by_time]),
        "cost_in_flops": flops["ours"] / flops["baseline"],
        **{f"{name}_calls": value for name, value in calls.items()},
        **setup.description(),
        "rounds": rounds,
    }


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
