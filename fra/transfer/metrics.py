"""Figures of merit as pure functions, each for many weightings of the same samples at once.

`weight_BN` holds B weightings of N samples: a row of ones gives the plain figure, rows of counts the
figures of bootstrap resamples. scikit-learn has most of these for one weighting a call, which is too slow
for thousands; the tests hold ours to its results. Results are (B,), NaN where a figure is undefined (no
sample of a class).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

OUTER_EYES = {68: (36, 45), 98: (60, 72), 5: (0, 1)}
"""Outer eye corners by number of landmarks: iBUG 300-W, WFLW; the eye centres for five points."""


def ratio(part: Array, whole: Array) -> Array:
    """part / whole; NaN where whole is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    result: Array = np.divide(
        part, whole, out=np.full(shape, np.nan), where=np.broadcast_to(whole, shape) > 0
    )
    return result


def mean(value_N: Array, weight_BN: Array) -> Array:
    """Weighted mean: (B,)."""
    return ratio(weight_BN @ value_N, weight_BN.sum(axis=1))


def accuracy(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """Share of predictions that are true: (B,)."""
    return mean((truth_N == pred_N).astype(float), weight_BN)


def balanced_accuracy(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """Mean over the classes of the truth of the share of each that is recognised: (B,)."""
    classes = np.unique(truth_N)
    recall = [mean((pred_N == c).astype(float)[truth_N == c], weight_BN[:, truth_N == c]) for c in classes]
    return mean_of_defined(np.stack(recall))


def f1(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """2·TP / (2·TP + FP + FN) of one class, both truth and prediction yes or no: (B,)."""
    hit_N, named_N = 1.0 * (truth_N & pred_N), 1.0 * truth_N + pred_N
    return ratio(2 * weight_BN @ hit_N, weight_BN @ named_N)


def macro_f1(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """Mean of `f1` over the classes of truth or prediction: (B,)."""
    classes = np.union1d(truth_N, pred_N)
    return mean_of_defined(np.stack([f1(truth_N == c, pred_N == c, weight_BN) for c in classes]))


class Ranking(NamedTuple):
    """What is accepted at each distinct score, from the highest down, as weight: both (B, T)."""

    true_BT: Array
    false_BT: Array


class Order(NamedTuple):
    """Samples from the highest score down: their places (N,), whether each is true, and the last of each distinct
    score (T,)."""

    place_N: Array
    true_N: Array
    last_T: Array


def by_score(truth_N: Array, score_N: Array) -> Order:
    """Samples by score; those with truth > 0 are true."""
    place_N = np.argsort(-score_N, kind="stable")
    last_T = np.append(np.flatnonzero(np.diff(score_N[place_N])), len(place_N) - 1)
    return Order(place_N, truth_N[place_N] > 0, last_T)


def rank(order: Order, weight_BN: Array) -> Ranking:
    """Cumulative weight of true and of other samples at or above each distinct score."""
    weight_BN = weight_BN[:, order.place_N]
    all_BT, true_BT = (np.cumsum(part, axis=1) for part in (weight_BN, weight_BN * order.true_N))
    if len(order.last_T) < len(order.place_N):
        all_BT, true_BT = all_BT[:, order.last_T], true_BT[:, order.last_T]
    return Ranking(true_BT, all_BT - true_BT)


def roc_auc(ranking: Ranking) -> Array:
    """Area under the ROC curve, the chance that a true sample scores above another one: (B,)."""
    true_BT, false_BT = (np.pad(side, ((0, 0), (1, 0))) for side in ranking)
    area = np.sum(np.diff(false_BT) * (true_BT[:, 1:] + true_BT[:, :-1]) / 2, axis=1)
    return ratio(area, true_BT[:, -1] * false_BT[:, -1])


def average_precision(ranking: Ranking) -> Array:
    """Precision at each distinct score, averaged by the recall gained there (no interpolation): (B,)."""
    gained_BT = np.diff(ranking.true_BT, axis=1, prepend=0)
    accepted_BT = np.maximum(
        ranking.true_BT + ranking.false_BT, np.finfo(float).tiny
    )  # where 0, nothing is gained
    return ratio(np.sum(gained_BT * ranking.true_BT / accepted_BT, axis=1), ranking.true_BT[:, -1])


def true_accepts(ranking: Ranking, false_accepts: float) -> Array:
    """TAR at FAR, the share of true samples accepted with at most `false_accepts` of the others: (B,).

    NaN where the others are too few to measure that rate.
    """
    tar_BT, far_BT = (ratio(side, side[:, -1:]) for side in ranking)
    tar_B = np.max(np.where(far_BT <= false_accepts, tar_BT, 0.0), axis=1)
    return np.where(ranking.false_BT[:, -1] * false_accepts >= 1, tar_B, np.nan)


def normalised_mean_error(pred_NL2: Array, truth_NL2: Array) -> Array:
    """Mean distance over the landmarks of each face, divided by that of its true outer eye corners: (N,).

    Both in pixels of the same image, so the result has no unit. Normalised as in 300-W and WFLW.

    Raises:
        ValueError: the shapes differ, or the number of landmarks has no known eye corners.
    """
    if pred_NL2.shape != truth_NL2.shape:
        raise ValueError(f"prediction {pred_NL2.shape} and truth {truth_NL2.shape} differ in shape")
    points = truth_NL2.shape[1]
    if points not in OUTER_EYES:
        raise ValueError(
            f"no outer eye corners are known for {points} landmarks; known: {sorted(OUTER_EYES)}"
        )
    left, right = OUTER_EYES[points]
    eyes_N = np.linalg.norm(truth_NL2[:, left] - truth_NL2[:, right], axis=-1)
    error_N: Array = np.linalg.norm(pred_NL2 - truth_NL2, axis=-1).mean(axis=1) / eyes_N
    return error_N


def failure_rate(error_N: Array, limit: float, weight_BN: Array) -> Array:
    """Share of images whose error is above `limit` (FR@limit): (B,)."""
    return mean((error_N > limit).astype(float), weight_BN)


def area_under_curve(error_N: Array, limit: float, weight_BN: Array) -> Array:
    """Area under the cumulative error curve from 0 to `limit`, divided by `limit` (AUC@limit): (B,).

    The curve is a staircase, so its area is exact: an image of error e adds max(0, limit − e). Published
    code integrates sampled curves (STAR: Simpson's rule, step 1e-4), which differs by about one step.
    """
    return mean(np.clip(limit - error_N, 0.0, None) / limit, weight_BN)


def cumulative_errors(error_N: Array, limits_T: Array) -> Array:
    """Share of images whose error is at most each limit, the cumulative error curve: (T,)."""
    return np.searchsorted(np.sort(error_N), limits_T, side="right") / len(error_N)


def best_threshold(score_N: Array, same_N: Array) -> float:
    """The threshold of highest accuracy for "same where score ≥ threshold"; halfway between two scores.

    Of equally good thresholds the lowest is taken; one that calls every pair different lies above all
    scores.
    """
    order = np.argsort(score_N, kind="stable")
    score, same = score_N[order], same_N[order] > 0
    # right_c: pairs told rightly when the c lowest are called different
    right = np.concatenate([[0], np.cumsum(~same)]) + np.concatenate([np.cumsum(same[::-1])[::-1], [0]])
    cuttable = np.concatenate([[True], score[1:] > score[:-1], [True]])  # never between two equal scores
    cut = int(np.argmax(np.where(cuttable, right, -1)))
    edges = np.concatenate([[score[0] - 1.0], (score[1:] + score[:-1]) / 2, [score[-1] + 1.0]])
    return float(edges[cut])


def angular_error(pred_ND: Array, truth_ND: Array) -> Array:
    """Angle between directions in degrees: (N,). Vectors of three numbers; neither needs unit length."""
    cosine = np.sum(pred_ND * truth_ND, axis=-1)
    sine = np.linalg.norm(np.cross(pred_ND, truth_ND), axis=-1)
    angle_N: Array = np.degrees(np.arctan2(sine, cosine))
    return angle_N


def mean_of_defined(value_CB: Array) -> Array:
    """Mean over the first axis, of what is not NaN: (B,)."""
    defined = ~np.isnan(value_CB)
    return ratio(np.where(defined, value_CB, 0.0).sum(axis=0), defined.sum(axis=0))
