"""A training step as one writes it first, and as the official code does it: the baseline of the benchmarks.

float32, default memory format, both directions in one graph, LARS and the target update tensor by tensor, values read
back (`.item()`) wherever a number is needed. It runs on the modules of `fra.method`, so it can start from the same
weights. A test compares its losses, gradients, LARS and target update with numbers of the official code
(tests/support/official.npz).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fra.method.networks import FRA, MLP, Encoder

RECIPE = {"lr": 0.9, "momentum": 0.9, "weight_decay": 1e-6, "trust": 1e-3}
TARGET_MOMENTUM = 0.996
PROTOTYPE_MOMENTUM = 0.9


def plain_mlp(mlp: MLP, x_BCN: Tensor) -> Tensor:
    """Runs an MLP as 1×1 convolutions on (B, C, N)."""
    x = F.conv1d(x_BCN, mlp.expand.weight[:, :, None])
    x = F.relu(mlp.batch_norm(x))
    return F.conv1d(x, mlp.reduce.weight[:, :, None])


def plain_encode(encoder: Encoder, view: Tensor) -> dict[str, Tensor]:
    """Returns global (B, D) and region (B, D, K) embeddings, mask scores (B, K, N) and mean mask embeddings (K, D)."""
    features = encoder.backbone(view)
    batch, _, height, width = features.shape
    embeddings = {"global": plain_mlp(encoder.global_mlp, features.mean((2, 3))[:, :, None])[:, :, 0]}
    neck = encoder.region_neck
    if neck is None:
        return embeddings
    pixels = features.reshape(batch, -1, height * width)
    projected = F.normalize(plain_mlp(neck.pixel_mlp, pixels), dim=1)
    masks = neck.decoder(pixels.transpose(1, 2), height, width).mean(0)
    scores = torch.einsum("kd,bdn->bkn", F.normalize(masks, dim=1), projected)
    heatmaps = scores.softmax(1) + 1e-7
    pooled = torch.einsum("bkn,bcn->bck", heatmaps / heatmaps.sum(2, keepdim=True), pixels)
    return {**embeddings, "region": plain_mlp(neck.region_mlp, pooled), "scores": scores, "masks": masks}


def plain_sinkhorn(scores: Tensor) -> Tensor:
    """Returns the assignment (B·N, K) of pixels to masks from scores (B, K, N) over the temperature."""
    assigned = scores.transpose(1, 2).flatten(0, 1).t().exp()
    assigned = assigned / assigned.sum()
    masks, pixels = assigned.shape
    for _ in range(3):
        assigned = assigned / assigned.sum(1, keepdim=True) / masks
        assigned = assigned / assigned.sum(0, keepdim=True) / pixels
    return (assigned * pixels).t()


def plain_losses(
    model: FRA, view1: Tensor, view2: Tensor
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Returns the losses by name, and the outputs of `plain_encode`: online 1, online 2, target 1, target 2."""
    objective = model.objective
    online = [plain_encode(model.online, view) for view in (view1, view2)]
    with torch.no_grad():
        target = [plain_encode(model.target, view) for view in (view1, view2)]
    global_loss = region_loss = relation_loss = torch.zeros((), device=view1.device, dtype=view1.dtype)
    for ours, theirs in zip(online, target[::-1], strict=True):
        predicted = plain_mlp(model.global_predictor, ours["global"][:, :, None])[:, :, 0]
        global_loss = global_loss + (2 - 2 * F.cosine_similarity(predicted, theirs["global"])).mean()
        if model.region_predictor is not None:
            predicted = F.normalize(plain_mlp(model.region_predictor, ours["region"]), dim=1)
            cosines = torch.einsum("bdj,bdk->bjk", predicted, F.normalize(theirs["region"], dim=1))
            own = torch.diagonal(cosines, dim1=1, dim2=2)
            others = (cosines**2).sum(2) - own**2
            region_loss = region_loss + (2 - 2 * own).mean()
            region_loss = region_loss + objective.decorrelation_weight * others.mean() / own.shape[1]
    if model.region_predictor is not None:
        for ours, theirs in zip(online, target, strict=True):
            student = (ours["scores"] / objective.student_temp).transpose(1, 2).flatten(0, 1)
            with torch.no_grad():
                teacher = plain_sinkhorn(theirs["scores"] / objective.teacher_temp)
            mean = student.softmax(1).mean(0)
            relation_loss = relation_loss - (teacher * student.log_softmax(1)).sum(1).mean() / 2
            relation_loss = relation_loss + (math.log(len(mean)) + (mean * mean.log()).sum()) / 2
    global_loss = objective.global_weight * global_loss
    region_loss = objective.region_weight * region_loss
    total = global_loss + region_loss + objective.relation_weight * relation_loss
    parts = {"total": total, "global": global_loss, "region": region_loss, "relation": relation_loss}
    return parts, online + target


class PlainLARS:
    """LARS one tensor at a time, with the norms read back from the device."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self.groups = list(groups)
        self.velocity: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, lr: float, momentum: float, weight_decay: float, trust: float) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = parameter.grad
                if group.get("adapt", True):
                    weight_norm, update_norm = parameter.norm().item(), update.norm().item()
                    update = update + weight_decay * parameter
                    if weight_norm > 0 and update_norm > 0:
                        update = update * (trust * weight_norm / (update_norm + weight_decay * weight_norm))
                velocity = self.velocity.setdefault(parameter, torch.zeros_like(parameter))
                velocity.mul_(momentum).add_(update)
                parameter.sub_(lr * velocity)


@torch.no_grad()
def plain_target_update(model: FRA, momentum: float) -> None:
    """Moves the parameters of the target network towards those of the online network."""
    for target, online in zip(model.target.parameters(), model.online.parameters(), strict=True):
        target.data = momentum * target.data + (1 - momentum) * online.data


@torch.no_grad()
def plain_prototype_update(encoder: Encoder, embeddings: dict[str, Tensor]) -> None:
    """Moves the prototypes towards the mean mask embeddings of one view."""
    if encoder.region_neck is not None:
        prototypes = encoder.region_neck.masks_KD
        prototypes.copy_(PROTOTYPE_MOMENTUM * prototypes + (1 - PROTOTYPE_MOMENTUM) * embeddings["masks"])


def plain_step(
    model: FRA, lars: PlainLARS, view1: Tensor, view2: Tensor, precision: torch.dtype = torch.float32
) -> dict[str, float]:
    """Runs one whole step, under autocast where the precision is lower than float32, and returns the losses."""
    for _, parameter in model.trained_parameters():
        parameter.grad = None
    with torch.autocast(view1.device.type, precision, enabled=precision != torch.float32):
        parts, outputs = plain_losses(model, view1, view2)
    torch.autograd.backward(parts["total"])
    lars.step(**RECIPE)
    plain_target_update(model, TARGET_MOMENTUM)
    encoders = (model.online, model.online, model.target, model.target)
    for encoder, embeddings in zip(encoders, outputs, strict=True):
        plain_prototype_update(encoder, embeddings)
    return {name: loss.item() for name, loss in parts.items()}
