"""The terms of the FRA objective (arXiv 2403.02138, CVPR 2024), one pure function each.

The paper's semantic consistency loss is `global_consistency` of whole faces and `region_consistency` of facial regions;
its semantic relation loss is `semantic_relation`. `FRA.forward` weights and adds them.

Shapes: B images, K masks, D projection channels, an H×W feature map, N = B·H·W pixels. Every function computes in
float32 (float64 for float64 inputs), whatever the precision of its inputs, and does not change its inputs. With
several ranks, Sinkhorn's sums over pixels and the mean assignment span all ranks.
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
    """Returns `x` in float32; float32 and float64 are returned unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def in_full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorator that disables autocast, which would compute matrix products in half precision."""

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
    """Returns the global consistency loss: the mean over the batch of 2 − 2 cos(prediction, target), as in BYOL.

    Args:
        pred_BD: Predictions of the online network's global predictor for one view.
        target_BD: Global embeddings of the target network for the other view.

    Returns:
        Scalar from 0 (equal directions) to 4 (opposite directions).

    Raises:
        ValueError: The shapes differ.
    """
    _check(pred_BD.ndim == 2 and pred_BD.shape == target_BD.shape, "global_consistency", pred_BD, target_BD)
    return _distance(pred_BD, target_BD)


def _distance(pred: Tensor, target: Tensor) -> Tensor:
    pred, target = full_precision(pred), full_precision(target)
    return 2 - 2 * F.cosine_similarity(pred, target, dim=-1, eps=1e-12).mean()


@in_full_precision
def region_consistency(pred_BKD: Tensor, target_BKD: Tensor, decorrelation_weight: float) -> Tensor:
    """Returns the region consistency loss: mean over images and masks of 2 − 2 cos, plus a decorrelation term.

    The cosine is that of prediction k and target k. The decorrelation term of the official code,
    `decorrelation_weight` × the mean over B·K of Σ_{j≠k} cos²(prediction k, target j) / K, keeps regions different.

    Args:
        pred_BKD: Predictions of the online network's region predictor for one view.
        target_BKD: Region embeddings of the target network for the other view.
        decorrelation_weight: Weight of the decorrelation term.

    Returns:
        Scalar.

    Raises:
        ValueError: The shapes differ.
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
    """Returns soft assignments made uniform over masks by Sinkhorn–Knopp iterations, as in SwAV (arXiv 2006.09882).

    Each iteration scales the masks to equal sums over the pixels of all ranks, then the masks of each pixel to sum 1.
    A mask without any assignment stays empty. There is no gradient.

    Args:
        probs_NK: Probabilities of masks for each pixel.
        iterations: Number of iterations; 0 returns a copy.

    Returns:
        Assignments (N, K); each row sums to 1.

    Raises:
        ValueError: The probabilities do not have two axes.
    """
    if probs_NK.ndim != 2:
        raise ValueError(f"sinkhorn: expected (pixels, masks), got shape {tuple(probs_NK.shape)}")
    assigned_NK = full_precision(probs_NK).clone()
    tiny = torch.finfo(assigned_NK.dtype).tiny
    for _ in range(iterations):
        assigned_NK /= dist.sum_over_ranks(assigned_NK.sum(0)).clamp_min(tiny)
        assigned_NK /= assigned_NK.sum(1, keepdim=True).clamp_min(tiny)
    return assigned_NK


def mask_assignment(scores_BKHW: Tensor, temperature: float) -> Tensor:
    """Returns the log-softmax over masks of scores / temperature, one row per pixel: (B·H·W, K)."""
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
    """Returns the semantic relation loss between the assignments of pixels to masks by two networks.

    Cross-entropy of the student's assignment, softmax(scores / `student_temp`), with the teacher's,
    softmax(scores / `teacher_temp`) made uniform over masks by `sinkhorn`, as mean over pixels; plus log K − entropy
    of the student's mean assignment over the pixels of all ranks, which is 0 if all masks are used equally.

    Args:
        student_BKHW: Mask scores (cosines) of the online network.
        teacher_BKHW: Mask scores of the target network for the same view; it gets no gradient.
        student_temp: Temperature of the student's softmax.
        teacher_temp: Temperature of the teacher's softmax.
        iterations: Number of Sinkhorn–Knopp iterations.

    Returns:
        Scalar, the mean over all pixels.

    Raises:
        ValueError: The shapes differ.
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
    """Returns the Shannon entropy over the last axis, in nats; 0 · log 0 is 0."""
    return cast(Tensor, torch.special.entr(probs_NK).sum(-1))
