"""Metrics as pure functions, each for many weightings of the same samples at once.

`weight_BN` holds B weightings of N samples: a row of ones gives the metric of the samples, rows of counts give the
metrics of bootstrap resamples. scikit-learn has most of these for one weighting per call, which is too slow for
thousands of resamples; tests compare with its results. Results are (B,), NaN where a metric is undefined (a class
without samples).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fra.faces.landmarks import EYES

Array = NDArray[Any]


def ratio(part: Array, whole: Array) -> Array:
    """Return part / whole; NaN where whole is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    result: Array = np.divide(
        part, whole, out=np.full(shape, np.nan), where=np.broadcast_to(whole, shape) > 0
    )
    return result


def mean(value_N: Array, weight_BN: Array) -> Array:
    """Return the weighted mean: (B,)."""
    return ratio(weight_BN @ value_N, weight_BN.sum(axis=1))


def accuracy(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """Return the share of correct predictions: (B,)."""
    return mean((truth_N == pred_N).astype(float), weight_BN)


def balanced_accuracy(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """Return the mean recall over the classes of the truth: (B,)."""
    classes = np.unique(truth_N)
    recall = [mean((pred_N == c).astype(float)[truth_N == c], weight_BN[:, truth_N == c]) for c in classes]
    return mean_of_defined(np.stack(recall))


def f1(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """Return 2·TP / (2·TP + FP + FN) of boolean truths and predictions: (B,)."""
    both_N, sum_N = 1.0 * (truth_N & pred_N), 1.0 * truth_N + pred_N
    return ratio(2 * weight_BN @ both_N, weight_BN @ sum_N)


def macro_f1(truth_N: Array, pred_N: Array, weight_BN: Array) -> Array:
    """Return the mean of `f1` over the classes of truth or prediction: (B,)."""
    classes = np.union1d(truth_N, pred_N)
    return mean_of_defined(np.stack([f1(truth_N == c, pred_N == c, weight_BN) for c in classes]))


class Ranking(NamedTuple):
    """Cumulative weight of positive and negative samples at each distinct score, from the highest down: (B, T) each."""

    positive_BT: Array
    negative_BT: Array


class Order(NamedTuple):
    """Samples sorted by score, highest first.

    Attributes:
        index_N: Index of each sample.
        positive_N: Whether each is positive.
        last_T: Position of the last sample of each distinct score.
    """

    index_N: Array
    positive_N: Array
    last_T: Array


def by_score(truth_N: Array, score_N: Array) -> Order:
    """Sort samples by score; those with truth > 0 are positive."""
    index_N = np.argsort(-score_N, kind="stable")
    last_T = np.append(np.flatnonzero(np.diff(score_N[index_N])), len(index_N) - 1)
    return Order(index_N, truth_N[index_N] > 0, last_T)


def rank(order: Order, weight_BN: Array) -> Ranking:
    """Return the cumulative weight of positive and negative samples at or above each distinct score."""
    weight_BN = weight_BN[:, order.index_N]
    all_BT, positive_BT = (np.cumsum(part, axis=1) for part in (weight_BN, weight_BN * order.positive_N))
    if len(order.last_T) < len(order.index_N):
        all_BT, positive_BT = all_BT[:, order.last_T], positive_BT[:, order.last_T]
    return Ranking(positive_BT, all_BT - positive_BT)


def roc_auc(ranking: Ranking) -> Array:
    """Return the area under the ROC curve: (B,)."""
    positive_BT, negative_BT = (np.pad(side, ((0, 0), (1, 0))) for side in ranking)
    area = np.sum(np.diff(negative_BT) * (positive_BT[:, 1:] + positive_BT[:, :-1]) / 2, axis=1)
    return ratio(area, positive_BT[:, -1] * negative_BT[:, -1])


def average_precision(ranking: Ranking) -> Array:
    """Return the average precision, without interpolation (as scikit-learn): (B,)."""
    gain_BT = np.diff(ranking.positive_BT, axis=1, prepend=0)
    accepted_BT = np.maximum(
        ranking.positive_BT + ranking.negative_BT, np.finfo(float).tiny
    )  # where 0, the gain is 0
    return ratio(np.sum(gain_BT * ranking.positive_BT / accepted_BT, axis=1), ranking.positive_BT[:, -1])


def true_accepts(ranking: Ranking, false_accepts: float) -> Array:
    """Return TAR at FAR, the largest true accept rate with at most this false accept rate: (B,).

    NaN where negative samples are too few to measure that rate.
    """
    tar_BT, far_BT = (ratio(side, side[:, -1:]) for side in ranking)
    tar_B = np.max(np.where(far_BT <= false_accepts, tar_BT, 0.0), axis=1)
    return np.where(ranking.negative_BT[:, -1] * false_accepts >= 1, tar_B, np.nan)


def normalised_mean_error(pred_NL2: Array, truth_NL2: Array) -> Array:
    """Return the NME of each face: mean landmark error / distance of the true outer eye corners (N,), without unit.

    The normalisation of 300-W and WFLW. Coordinates are in pixels of the same image.

    Raises:
        ValueError: The shapes differ, or the eye corners of this number of landmarks are unknown.
    """
    if pred_NL2.shape != truth_NL2.shape:
        raise ValueError(f"prediction {pred_NL2.shape} and truth {truth_NL2.shape} differ in shape")
    points = truth_NL2.shape[1]
    if points not in EYES:
        raise ValueError(f"no outer eye corners are known for {points} landmarks; known: {sorted(EYES)}")
    left, right = EYES[points]
    eyes_N = np.linalg.norm(truth_NL2[:, left] - truth_NL2[:, right], axis=-1)
    error_N: Array = np.linalg.norm(pred_NL2 - truth_NL2, axis=-1).mean(axis=1) / eyes_N
    return error_N


def failure_rate(error_N: Array, limit: float, weight_BN: Array) -> Array:
    """Return FR@limit, the share of images whose error is above `limit`: (B,)."""
    return mean((error_N > limit).astype(float), weight_BN)


def area_under_curve(error_N: Array, limit: float, weight_BN: Array) -> Array:
    """Return AUC@limit, the area under the cumulative error curve from 0 to `limit`, divided by `limit`: (B,).

    The curve is a step function, so its area is exact: an image of error e adds max(0, limit − e). Published code
    integrates sampled curves (STAR: Simpson's rule, step 1e-4), which differs by about one step.
    """
    return mean(np.clip(limit - error_N, 0.0, None) / limit, weight_BN)


def cumulative_errors(error_N: Array, limits_T: Array) -> Array:
    """Return the cumulative error curve, the share of images whose error is at most each limit: (T,)."""
    return np.searchsorted(np.sort(error_N), limits_T, side="right") / len(error_N)


def best_threshold(score_N: Array, same_N: Array) -> float:
    """Return the threshold of highest accuracy for "same where score ≥ threshold".

    It is halfway between two neighbouring scores, or beyond all of them; the lowest of equally good ones.
    """
    order = np.argsort(score_N, kind="stable")
    score, same = score_N[order], same_N[order] > 0
    # correct[c]: correct decisions when the c lowest scores are called different
    correct = np.concatenate([[0], np.cumsum(~same)]) + np.concatenate([np.cumsum(same[::-1])[::-1], [0]])
    separable = np.concatenate([[True], score[1:] > score[:-1], [True]])  # never between two equal scores
    cut = int(np.argmax(np.where(separable, correct, -1)))
    edges = np.concatenate([[score[0] - 1.0], (score[1:] + score[:-1]) / 2, [score[-1] + 1.0]])
    return float(edges[cut])


def angular_error(pred_ND: Array, truth_ND: Array) -> Array:
    """Return the angle between 3-D directions of any length, in degrees: (N,)."""
    cosine = np.sum(pred_ND * truth_ND, axis=-1)
    sine = np.linalg.norm(np.cross(pred_ND, truth_ND), axis=-1)
    angle_N: Array = np.degrees(np.arctan2(sine, cosine))
    return angle_N


def r_squared(pred_N: Array, truth_N: Array, weight_BN: Array) -> Array:
    """Return the coefficient of determination R², 1 − mean squared error / variance of the truth: (B,)."""
    variance_B = mean(truth_N**2, weight_BN) - mean(truth_N, weight_BN) ** 2
    return 1 - ratio(mean((pred_N - truth_N) ** 2, weight_BN), variance_B)


def mean_of_defined(value_CB: Array) -> Array:
    """Return the mean over the first axis of the values that are not NaN: (B,)."""
    defined = ~np.isnan(value_CB)
    return ratio(np.where(defined, value_CB, 0.0).sum(axis=0), defined.sum(axis=0))
