"""Peer: the plain step of FRA, checked against the official code, with autocast and the channels-last layout.

Autocast is to the precision that our step uses: bfloat16 where the hardware multiplies it.
The official code itself is no package, and its licence forbids commercial use.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fra.bench.measure import Work
from fra.bench.peers.serve import serve
from fra.bench.training.plain_step import PlainLARS, plain_step
from fra.bench.training.setup import Setup
from fra.method.config import ObjectiveConfig
from fra.method.networks import build
from fra.train import optim


def prepare(**settings: Any) -> Work:
    """Returns a step on a fixed pair of views; the settings are those of `Setup`."""
    setup = Setup.from_settings(**settings)
    torch.manual_seed(0)
    model = build(setup.model, ObjectiveConfig()).to(setup.device).train()
    model.to(memory_format=torch.channels_last)
    lars = PlainLARS(optim.adaptation_groups(model.trained_parameters()))
    step = partial(plain_step, model, lars, *setup.views(torch.channels_last), precision=setup.precision)
    step()
    return setup.work(step)


if __name__ == "__main__":
    serve(prepare)
