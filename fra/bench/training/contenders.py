"""The training steps that are compared: ours and the plain one, on networks with the same initial weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fra.bench.training.plain_step import PROTOTYPE_MOMENTUM, RECIPE, TARGET_MOMENTUM, PlainLARS, plain_step
from fra.bench.training.setup import Setup
from fra.method.config import ObjectiveConfig
from fra.method.networks import FRA, build
from fra.train import optim
from fra.train.step import StepOutput, TrainStep

PlainStep: TypeAlias = Callable[[Tensor, Tensor], dict[str, float]]
OurStep: TypeAlias = Callable[[Tensor, Tensor], StepOutput]
"""A training step on a pair of views (B, 3, H, W)."""
Optimise: TypeAlias = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]

FRA_OBJECTIVE = ObjectiveConfig()
BYOL_OBJECTIVE = ObjectiveConfig(global_weight=1.0, region_weight=0.0, relation_weight=0.0)

LARS: Optimise = partial(optim.lars, **RECIPE)  # type: ignore[arg-type]
ADAMW: Optimise = partial(optim.adamw, lr=1e-3, weight_decay=0.01)


def networks(setup: Setup, objective: ObjectiveConfig = FRA_OBJECTIVE) -> FRA:
    """Returns the networks of a setup, with the same initial weights in each call."""
    torch.manual_seed(0)
    return build(setup.model, objective)


def our_step(
    setup: Setup,
    objective: ObjectiveConfig = FRA_OBJECTIVE,
    optimise: Optimise = LARS,
    compiled: bool = False,
) -> OurStep:
    """Returns our training step."""
    train_step = TrainStep(networks(setup, objective), setup.device, setup.precision, compiled=compiled)
    optimizer = optimise(train_step.model.trained_parameters())
    lr = optimizer.param_groups[0]["lr"]

    def step(view1_B3HW: Tensor, view2_B3HW: Tensor) -> StepOutput:
        return train_step(view1_B3HW, view2_B3HW, optimizer, lr, TARGET_MOMENTUM, PROTOTYPE_MOMENTUM)

    return step


def plain(
    setup: Setup,
    memory_format: torch.memory_format = torch.contiguous_format,
    precision: torch.dtype = torch.float32,
) -> PlainStep:
    """Returns the plain step (`plain_step`) with its networks in a memory format, under autocast to a precision."""
    model = networks(setup).to(setup.device).train()
    model.to(memory_format=memory_format)
    lars = PlainLARS(optim.adaptation_groups(model.trained_parameters()))
    return partial(plain_step, model, lars, precision=precision)
