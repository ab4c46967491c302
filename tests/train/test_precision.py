"""Two hundred steps in bfloat16 beside float32, on noise, and what rounding alone does to a training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.toy_training import ToyLoader
from torch import Tensor

from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import FRA, build
from fra.train import optim
from fra.train.schedule import target_momentum, warmup_cosine
from fra.train.step import TrainStep

MODEL = ModelConfig("mini", num_masks=8, projection_dim=64, hidden_dim=256)
STEPS, BATCH, ROW = 200, 32, 10
EPOCHS = STEPS // 4
DRAWS = 6
MOVED = 1e-6
DROPOUT_SEED = 10**6
CPU = torch.device("cpu")
Curve = NDArray[np.float64]


def train_step(precision: torch.dtype) -> TrainStep:
    torch.manual_seed(0)
    return TrainStep(build(MODEL, ObjectiveConfig()), CPU, precision)


def curve(
    optimizer: str,
    precision: torch.dtype = torch.float32,
    draw: int = 0,
    visit: Callable[[int, FRA, Any], None] | None = None,
) -> Curve:
    """Mean loss of every ten of 200 steps: the paper's recipe ("lars") or the demo's ("adamw").

    The paper's rate of 0.9 is for 512 images, and scaled to the batch. A `draw` above 0 moves the initial weights by
    one part in a million, each in its own direction. `visit` is called before each step with the step, the networks
    and the two views.
    """
    ours = train_step(precision)
    if draw:
        move(ours.model, draw)
    named = list(ours.model.trained_parameters())
    chosen, peak, momentum = {
        "lars": (optim.lars(named, 0.9, 0.9, 1e-6, 1e-3), 0.9 * BATCH / 512, 0.996),
        "adamw": (optim.adamw(named, 1e-3, 0.01), 1e-3, 0.99),
    }[optimizer]
    rates = warmup_cosine(peak, EPOCHS, EPOCHS // 5, STEPS // EPOCHS)
    loader, views = ToyLoader(BATCH, images=4 * BATCH), Views(ViewsConfig(), seed=0)
    losses = []
    for epoch in range(EPOCHS):
        for crops in loader.epoch(epoch):
            step = len(losses)
            pair = views(crops, epoch, CPU)
            if visit is not None:
                visit(step, ours.model, pair)
            torch.manual_seed(DROPOUT_SEED + step)
            outcome = ours(*pair, chosen, float(rates[step]), target_momentum(momentum, step, STEPS), 0.9)
            losses.append(float(outcome.losses[0]))
    return np.array(losses).reshape(-1, ROW).mean(1)


def move(model: FRA, draw: int) -> None:
    """Online and target alike."""
    generator = torch.Generator().manual_seed(draw)
    with torch.no_grad():
        for online, target in zip(model.online.parameters(), model.target.parameters(), strict=True):
            factor = 1 + MOVED * torch.randn(online.shape, generator=generator)
            online.mul_(factor)
            target.mul_(factor)


def departure(ours: Curve, theirs: Curve) -> float:
    return float((np.abs(ours - theirs) / theirs).max())


def by_chance(ours: list[Curve], theirs: list[Curve]) -> float:
    """How often curves dealt into two groups at random have means that part as far as these (permutation test)."""
    curves = np.array(ours + theirs)
    found = departure(np.mean(ours, 0), np.mean(theirs, 0))
    parted = []
    for chosen in itertools.combinations(range(len(curves)), len(ours)):
        group = np.isin(range(len(curves)), chosen)
        parted.append(departure(curves[group].mean(0), curves[~group].mean(0)))
    return float(np.mean(np.array(parted) >= found))


@pytest.mark.slow
def test_the_papers_recipe_stays_within_one_percent_in_half_precision() -> None:
    full = curve("lars")
    half = departure(curve("lars", torch.bfloat16), full)
    moved = departure(curve("lars", draw=1), full)
    print(f"LARS: bfloat16 departs by {half:.2%}, float32 from weights moved by {MOVED:.0e} by {moved:.2%}")
    assert full[-1] < full[0]
    assert 0 < half < 0.01


@pytest.mark.slow
def test_at_the_same_weights_the_loss_is_the_same_to_bfloat16s_last_digit() -> None:
    """Chaos left out: the weights are those of one float32 training by AdamW, every tenth step of it.

    The bound, 2⁻⁹, is what rounding the loss alone to bfloat16 would do; a loss or score computed in it would do more.
    """
    full, half = train_step(torch.float32), train_step(torch.bfloat16)
    losses, gradients = [], []

    def visit(step: int, model: FRA, pair: Any) -> None:
        if step % ROW:
            return
        (ours, ours_G), (theirs, theirs_G) = (gradient(one, model, pair) for one in (half, full))
        losses.append(abs(ours - theirs) / theirs)
        gradients.append(float((ours_G - theirs_G).norm() / theirs_G.norm()))

    curve("adamw", visit=visit)
    print(
        f"AdamW, same weights: loss {max(losses):.3%} at most, gradient {np.mean(gradients):.1%} in the mean"
    )
    assert len(losses) == STEPS // ROW
    assert 0 < max(losses) < 2**-9


def gradient(ours: TrainStep, model: FRA, pair: tuple[Tensor, Tensor]) -> tuple[float, Tensor]:
    """Loss, and gradient of all weights in one row, of a trainer given a model's weights."""
    ours.model.load_state_dict(model.state_dict())
    ours.model.zero_grad(set_to_none=True)
    torch.manual_seed(DROPOUT_SEED)
    outcome = ours.backward(*pair)[0]
    parts = [p.grad.flatten() for _, p in ours.model.trained_parameters() if p.grad is not None]
    return float(outcome.losses[0]), torch.cat(parts)


@pytest.mark.slow
def test_adamws_curves_in_half_precision_are_among_those_of_float32() -> None:
    """A training by AdamW is chaotic: float32 runs that began one part in a million apart end per cents apart, so no
    precision can keep a single run within 1 %. Compared are the means of several runs, equally moved.

    The bound of 1 % holds while float32 runs stay together (their deviation is below 0.3 % for 50 steps, 9/10 of the
    loss's fall). After that the two groups must not differ by more than chance deals in one case of a hundred, which
    finds shifts of 3 % and more.
    """
    full, half = (
        [curve("adamw", precision, draw) for draw in range(1, DRAWS + 1)]
        for precision in (torch.float32, torch.bfloat16)
    )
    together = 50 // ROW
    early = departure(np.mean(half, 0)[:together], np.mean(full, 0)[:together])
    whole, chance = departure(np.mean(half, 0), np.mean(full, 0)), by_chance(half, full)
    own = np.median([departure(a, b) for a, b in itertools.permutations(full, 2)])
    across = np.median([departure(a, b) for a in half for b in full])
    spread = np.var(full, 0, ddof=1)[-1] + np.var(half, 0, ddof=1)[-1]
    error = math.sqrt(spread / DRAWS) / np.mean(full, 0)[-1]
    print(f"AdamW, {DRAWS} runs each: two of float32 part by {own:.2%}, one of each by {across:.2%} (median)")
    print(
        f"means: {early:.2%} apart in 50 steps, {whole:.2%} in 200 (standard error {error:.2%}, p {chance:.2f})"
    )
    assert np.mean(full, 0)[-1] < 0.9 * np.mean(full, 0)[0]
    assert 0 < early < 0.01
    assert chance > 0.01
