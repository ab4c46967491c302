"""The terms of the FRA objective, one pure function each (CVPR 2024, section 3; arXiv 2403.10782).

Shapes: B images, K masks, D projection channels, an H×W feature map, N = B·H·W pixels. Every function
computes in float32 (or float64, if given that), whatever the precision of its inputs, and leaves its inputs
untouched. Where several ranks run, sums over masks and the mean assignment span all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fra import dist

P = ParamSpec("P")


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or as it is when already float32 or float64."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def in_full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Have a function of tensors compute as if there were no autocast, which would turn its products to
    half."""

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return computed


def _check(same: bool, name: str, *tensors: Tensor) -> None:
    if not same:
        raise ValueError(
            f"{name}: shapes do not match: " + " and ".join(str(tuple(t.shape)) for t in tensors)
        )


@in_full_precision
def global_consistency(pred_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Mean over the batch of 2 − 2 cos(prediction, target), as in BYOL: 0 (alike) to 4 (opposed).

    Raises ValueError where the shapes differ.
    """
    _check(pred_BD.ndim == 2 and pred_BD.shape == target_BD.shape, "global_consistency", pred_BD, target_BD)
    return _distance(pred_BD, target_BD)


def _distance(pred: Tensor, target: Tensor) -> Tensor:
    pred, target = full_precision(pred), full_precision(target)
    return 2 - 2 * F.cosine_similarity(pred, target, dim=-1, eps=1e-12).mean()


@in_full_precision
def region_consistency(pred_BKD: Tensor, target_BKD: Tensor, decorrelation_weight: float) -> Tensor:
    """Mean over images and masks of 2 − 2 cos(prediction k, target k), plus what keeps regions apart.

    The latter is `decorrelation_weight` × the mean over B·K of Σ_{j≠k} cos²(prediction k, target j) / K.
    Raises ValueError where the shapes differ.
    """
    _check(
        pred_BKD.ndim == 3 and pred_BKD.shape == target_BKD.shape, "region_consistency", pred_BKD, target_BKD
    )
    pred_BKD = F.normalize(full_precision(pred_BKD), dim=-1)
    target_BKD = F.normalize(full_precision(target_BKD), dim=-1)
    cosine_BKK = pred_BKD @ target_BKD.mT
    own_BK = cosine_BKK.diagonal(dim1=1, dim2=2)
    masks = cosine_BKK.shape[1]
    others_BK = (cosine_BKK.square().sum(2) - own_BK.square()) / masks
    return 2 - 2 * own_BK.mean() + decorrelation_weight * others_BK.mean()


@torch.no_grad()
def sinkhorn(probs_NK: Tensor, iterations: int = 3) -> Tensor:
    """Make soft assignments (N, K) uniform over the K masks, by Sinkhorn-Knopp (official code; SwAV).

    Each iteration scales the masks to equal sums (over the pixels of all ranks), then each pixel to sum 1.
    No gradient. A mask that nothing at all was assigned to stays empty.
    """
    assigned_NK = full_precision(probs_NK).clone()
    tiny = torch.finfo(assigned_NK.dtype).tiny
    for _ in range(iterations):
        assigned_NK /= dist.sum_over_ranks(assigned_NK.sum(0)).clamp_min(tiny)
        assigned_NK /= assigned_NK.sum(1, keepdim=True).clamp_min(tiny)
    return assigned_NK


def mask_assignment(scores_BKHW: Tensor, temperature: float) -> Tensor:
    """log-softmax over the masks of scores / temperature, one row a pixel: (B·H·W, K)."""
    scores_NK = full_precision(scores_BKHW).permute(0, 2, 3, 1).reshape(-1, scores_BKHW.shape[1])
    return F.log_softmax(scores_NK / temperature, dim=1)


@in_full_precision
def semantic_relation(
    student_BKHW: Tensor,
    teacher_BKHW: Tensor,
    student_temp: float = 0.1,
    teacher_temp: float = 0.04,
    iterations: int = 3,
) -> Tensor:
    """How far the student's assignment of pixels to masks is from the teacher's, and from using all masks.

    Cross-entropy from the teacher's assignment (softmax of scores / `teacher_temp`, made uniform over masks
    by `sinkhorn`) to the student's, mean over pixels, plus log K − entropy of the student's mean assignment
    over the pixels of all ranks. Scores are cosines. No gradient reaches the teacher. Raises ValueError
    where shapes differ.
    """
    _check(
        student_BKHW.ndim == 4 and student_BKHW.shape == teacher_BKHW.shape,
        "semantic_relation",
        student_BKHW,
        teacher_BKHW,
    )
    log_student_NK = mask_assignment(student_BKHW, student_temp)
    teacher_NK = sinkhorn(mask_assignment(teacher_BKHW.detach(), teacher_temp).exp(), iterations)
    cross_entropy = -(teacher_NK * log_student_NK).sum(1).mean()
    mean_K = dist.mean_over_ranks(log_student_NK.exp().mean(0))
    return cross_entropy + math.log(mean_K.numel()) - entropy(mean_K)


def entropy(probs_NK: Tensor) -> Tensor:
    """Shannon entropy over the last axis, in nats; 0·log 0 = 0."""
    return cast(Tensor, torch.special.entr(probs_NK).sum(-1))
