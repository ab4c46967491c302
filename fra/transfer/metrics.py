"""Figures of merit that scikit-learn does not have, as pure functions of arrays.

Accuracy, balanced accuracy, F1, average precision and ROC AUC are scikit-learn's and are called where they
are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

Array = NDArray[Any]

#: Outer eye corners (indices) by number of landmarks: iBUG 300-W, WFLW; the eye centres for five points.
OUTER_EYES = {68: (36, 45), 98: (60, 72), 5: (0, 1)}


def normalised_mean_error(pred_NL2: Array, truth_NL2: Array) -> Array:
    """Mean distance over the landmarks of each face, divided by the distance of its outer eye corners: (N,).

    Both in pixels of the same image, so the result has no unit. The normaliser is taken from the truth, as
    in 300-W and WFLW.

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


def failure_rate(error_N: Array, limit: float) -> float:
    """Share of images whose error is above `limit` (FR@limit)."""
    return float(np.mean(error_N > limit))


def cumulative_errors(error_N: Array, limits_T: Array) -> Array:
    """Share of images whose error is at most each limit, the cumulative error curve: (T,)."""
    return np.searchsorted(np.sort(error_N), limits_T, side="right") / len(error_N)


def area_under_curve(error_N: Array, limit: float) -> float:
    """Area under the cumulative error curve from 0 to `limit`, divided by `limit` (AUC@limit).

    The curve is a staircase, so its area is exact: an image of error e adds max(0, limit − e). Published
    code integrates sampled curves (STAR: Simpson's rule, step 1e-4), which differs by about one step.
    """
    return float(np.mean(np.clip(limit - error_N, 0.0, None)) / limit)


def best_threshold(score_N: Array, same_N: Array) -> float:
    """The threshold of highest accuracy for "same where score ≥ threshold"; halfway between two scores.

    Of equally good thresholds the lowest is taken; one that calls every pair different lies above all
    scores.
    """
    order = np.argsort(score_N, kind="stable")
    score, same = score_N[order], same_N[order].astype(bool)
    # right_c: pairs told rightly when the c lowest are called different
    right = np.concatenate([[0], np.cumsum(~same)]) + np.concatenate([np.cumsum(same[::-1])[::-1], [0]])
    cuttable = np.concatenate([[True], score[1:] > score[:-1], [True]])  # never between two equal scores
    cut = int(np.argmax(np.where(cuttable, right, -1)))
    edges = np.concatenate([[score[0] - 1.0], (score[1:] + score[:-1]) / 2, [score[-1] + 1.0]])
    return float(edges[cut])


def fold_accuracies(score_N: Array, same_N: Array, fold_N: Array) -> Array:
    """Accuracy on each fold at the threshold best on all others (LFW's 10-fold protocol): (folds,)."""
    folds = np.unique(fold_N)
    if len(folds) < 2:
        raise ValueError(f"the threshold needs at least two folds, got {len(folds)}")
    accuracy = []
    for fold in folds:
        held = fold_N == fold
        threshold = best_threshold(score_N[~held], same_N[~held])
        accuracy.append(np.mean((score_N[held] >= threshold) == same_N[held].astype(bool)))
    return np.array(accuracy)


def true_accepts(score_N: Array, same_N: Array, false_accepts: float) -> float:
    """TAR at FAR: share of same pairs accepted where at most the share `false_accepts` of the others is.

    NaN where the different pairs are too few to measure that rate.
    """
    if np.sum(same_N == 0) * false_accepts < 1:
        return float("nan")
    far, tar, _ = roc_curve(same_N, score_N, drop_intermediate=False)
    return float(tar[far <= false_accepts].max())


def angular_error(pred_N3: Array, truth_N3: Array) -> Array:
    """Angle between directions in degrees: (N,). Neither needs unit length."""
    cosine = np.sum(pred_N3 * truth_N3, axis=-1)
    sine = np.linalg.norm(np.cross(pred_N3, truth_N3), axis=-1)
    angle_N: Array = np.degrees(np.arctan2(sine, cosine))
    return angle_N
