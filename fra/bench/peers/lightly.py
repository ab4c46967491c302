# /// script
# dependencies = ["lightly==1.6.0"]
# ///
"""Peer: a training step of BYOL from lightly's parts, with autocast and the channels-last layout."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, get_weight_decay_parameters, update_momentum
from lightly.utils.lars import LARS
from torch import Tensor, nn

from fra.bench.measure import Work
from fra.bench.peers.serve import serve
from fra.bench.training.plain_step import RECIPE, TARGET_MOMENTUM
from fra.bench.training.setup import Setup
from fra.method.backbone import build


def prepare(**settings: Any) -> Work:
    """Returns a step on a fixed pair of views; the settings are those of `Setup`."""
    setup = Setup.from_settings(**settings)
    hidden_dim, projection_dim = setup.model.hidden_dim, setup.model.projection_dim
    torch.manual_seed(0)
    trunk = build(setup.model.backbone)
    online = nn.Sequential(
        trunk,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        BYOLProjectionHead(trunk.feature_dim, hidden_dim, projection_dim),
    )
    target = copy.deepcopy(online)
    deactivate_requires_grad(target)
    predictor = BYOLPredictionHead(projection_dim, hidden_dim, projection_dim)
    nn.ModuleList([online, target, predictor]).to(setup.device).to(memory_format=torch.channels_last).train()
    decayed, others = get_weight_decay_parameters([online, predictor])
    optimizer = LARS(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=RECIPE["lr"],
        momentum=RECIPE["momentum"],
        weight_decay=RECIPE["weight_decay"],
        trust_coefficient=RECIPE["trust"],
    )
    loss_of = NegativeCosineSimilarity()
    view1, view2 = setup.views(torch.channels_last)
    lower = setup.precision != torch.float32

    def targets(view: Tensor) -> Tensor:
        with torch.no_grad():
            return target(view)  # type: ignore[no-any-return]

    def step() -> None:
        update_momentum(online, target, TARGET_MOMENTUM)
        with torch.autocast(setup.device.type, setup.precision, enabled=lower):
            predicted1, predicted2 = predictor(online(view1)), predictor(online(view2))
            loss = (loss_of(predicted1, targets(view2)) + loss_of(predicted2, targets(view1))) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # it is logged

    step()
    return setup.work(step)


if __name__ == "__main__":
    serve(prepare)
