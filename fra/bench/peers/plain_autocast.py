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
from fra.bench.training.contenders import plain
from fra.bench.training.setup import Setup


def prepare(**settings: Any) -> Work:
    """Returns a step on a fixed pair of views; the settings are those of `Setup`."""
    setup = Setup.from_settings(**settings)
    layout = torch.channels_last
    step = partial(plain(setup, layout, setup.precision), *setup.views(layout))
    step()
    return setup.work(step)


if __name__ == "__main__":
    serve(prepare)
