"""Heads on frozen features: ``fit(x_ND, y_NO, strengths)`` gives one ``predict(x_MD) -> (M, O)`` a strength.

`y` holds one column an output, NaN where the truth is unknown; a class is a one-hot row. `strength` is the
one hyper-parameter of each head, chosen on validation people by `choose`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Predict = Callable[[Array], Array]
Fit = Callable[[Array, Array, Sequence[float]], list[Predict]]
Loss = Callable[[Array, Array], float]

SIMILARITIES = 1 << 24
"""Of images to their neighbours, in memory at a time (a quarter of a GiB): those of all of CelebA would not fit."""


@dataclass(frozen=True)
class Head:
    """A way to fit, and the strengths worth trying, from the simplest model to the most flexible."""

    fit: Fit
    strengths: tuple[float, ...]


def fit_softmax(x_ND: Array, y_NO: Array, strengths: Sequence[float]) -> list[Predict]:
    """Linear probe for one of O classes: probabilities.

    Multinomial logistic regression on standardised features; scikit-learn's C is strength / N. A class without an
    example gets probability 0, so where there is one class only it is always predicted.
    """
    known = ~np.isnan(y_NO).any(axis=1)
    x_ND, label_N = x_ND[known], y_NO[known].argmax(axis=1)
    seen, classes = np.unique(label_N), y_NO.shape[1]

    def spread(p_MS: Array) -> Array:
        p_MC = np.zeros((len(p_MS), classes))
        p_MC[:, seen] = p_MS
        return p_MC

    if len(seen) == 1:
        return [lambda x: spread(np.ones((len(x), 1))) for _ in strengths]
    scaler = StandardScaler().fit(x_ND)
    x_ND = scaler.transform(x_ND)

    def fit(strength: float) -> Predict:
        model = LogisticRegression(C=strength / len(x_ND), max_iter=1000).fit(x_ND, label_N)
        return lambda x: spread(model.predict_proba(scaler.transform(x)))

    return [fit(strength) for strength in strengths]


def fit_sigmoids(x_ND: Array, y_NO: Array, strengths: Sequence[float]) -> list[Predict]:
    """Linear probe for O labels, each yes or no and learnt from its own known rows: probabilities of yes.

    Logistic regression of all labels at once (`regress`), on features standardised over all rows. A label that is
    always yes (1), or never (0), is predicted so.

    Raises:
        ValueError: an output has no known row to learn from.
    """
    known_NO = ~np.isnan(y_NO)
    if (empty := ~known_NO.any(axis=0)).any():
        raise ValueError(
            f"no training image has a known value of label number {int(np.flatnonzero(empty)[0])}"
        )
    scaler = StandardScaler().fit(x_ND)
    x_ND = scaler.transform(x_ND)
    dtype = x_ND.dtype
    share_NO = (known_NO / known_NO.sum(axis=0)).astype(dtype)
    y_NO = np.where(known_NO, y_NO, 0).astype(dtype)
    rate_O = y_NO.sum(axis=0, dtype=np.float64) / known_NO.sum(axis=0)
    open_O = (rate_O > 0) & (rate_O < 1)
    basis_DR, square_R = principal(x_ND)
    z_NR = x_ND @ basis_DR

    def predictor(weight_RO: Array) -> Predict:
        weight_DO, bias_O = basis_DR @ weight_RO[:-1].astype(dtype), weight_RO[-1]

        def predict(x_MD: Array) -> Array:
            p_MO = np.tile(rate_O, (len(x_MD), 1))
            p_MO[:, open_O] = expit(scaler.transform(x_MD) @ weight_DO + bias_O)
            return p_MO

        return predict

    weight_RO = np.zeros((len(square_R) + 1, int(open_O.sum())))
    predictors = []
    for strength in strengths:
        weight_RO = regress(z_NR, square_R, y_NO[:, open_O], share_NO[:, open_O], strength, weight_RO)
        predictors.append(predictor(weight_RO))
    return predictors


def regress(
    z_NR: Array, square_R: Array, y_NO: Array, share_NO: Array, strength: float, start_RO: Array
) -> Array:
    """Logistic regression of O labels at once on uncorrelated features, whose sums of squares are given: weights,
    and intercepts in the last row.

    Per label the mean loss, each row with its share of it, + ‖w‖² / (2 · strength): scikit-learn's at C = strength / N.
    Each direction is scaled by the bound on its curvature, mean square / 4 + 1 / strength (Böhning & Lindsay 1988), so
    that few passes are needed whatever the strength.
    """
    shape, dtype = start_RO.shape, z_NR.dtype
    if not start_RO.size:
        return start_RO
    penalty_R1 = np.append(np.full(len(square_R), 1 / strength), 0)[:, None]
    scale_R1 = (np.append(square_R / len(z_NR), 1)[:, None] / 4 + penalty_R1) ** -0.5

    def loss(flat: Array) -> tuple[float, Array]:
        weight_RO = scale_R1 * flat.reshape(shape)
        logit_NO = z_NR @ weight_RO[:-1].astype(dtype) + weight_RO[-1].astype(dtype)
        surprise_NO = np.maximum(logit_NO, 0) - y_NO * logit_NO + np.log1p(np.exp(-np.abs(logit_NO)))
        value = np.sum(share_NO * surprise_NO, dtype=np.float64) + np.sum(penalty_R1 * weight_RO**2) / 2
        off_NO = share_NO * (expit(logit_NO) - y_NO)
        slope_RO = np.vstack([z_NR.T @ off_NO, off_NO.sum(axis=0)]) + penalty_R1 * weight_RO
        return float(value), (scale_R1 * slope_RO).ravel()

    options = {"gtol": 5e-5, "ftol": 0.0, "maxiter": 1000}
    found = minimize(loss, (start_RO / scale_R1).ravel(), jac=True, method="L-BFGS-B", options=options)
    if (slope := np.abs(found.jac).max()) > 1e-3:
        logger.warning(
            "logistic regression of strength %g: stopped after %d passes at a slope of %.1e: %s",
            *(strength, found.nfev, slope, found.message),
        )
    weight_RO: Array = scale_R1 * found.x.reshape(shape)
    return weight_RO


def principal(x_ND: Array) -> tuple[Array, Array]:
    """The R ≤ min(N, D) directions in which rows vary, orthonormal (D, R), and the sum of squares along each (R,).

    From one eigen-decomposition, of the smaller of the two Gram matrices: a whole feature map of a few hundred images
    is no burden. Of fewer rows than features, directions that are lost in rounding are left out.
    """
    dual = len(x_ND) < x_ND.shape[1]
    square_R, vectors = np.linalg.eigh((x_ND @ x_ND.T if dual else x_ND.T @ x_ND).astype(np.float64))
    if not dual:
        return vectors.astype(x_ND.dtype), np.maximum(square_R, 0)
    kept = square_R > square_R[-1] * np.finfo(x_ND.dtype).eps
    square_R, vectors = square_R[kept], vectors[:, kept]
    return x_ND.T @ (vectors / np.sqrt(square_R)).astype(x_ND.dtype), square_R


def fit_ridge(x_ND: Array, y_NO: Array, strengths: Sequence[float]) -> list[Predict]:
    """Linear regression with the L2 penalty ``mean squared norm of the centred features / strength``.

    So a strength means the same for features of any scale and any number. One decomposition serves all strengths.
    """
    known = ~np.isnan(y_NO).any(axis=1)
    x_ND, y_NO = x_ND[known], y_NO[known]
    centre, mean = x_ND.mean(axis=0), y_NO.mean(axis=0)
    x_ND, y_NO = x_ND - centre, y_NO - mean
    energy = max(float(np.sum(np.square(x_ND), dtype=np.float64)) / len(x_ND), 1e-12)
    basis_DR, square_R = principal(x_ND)
    target_RO = (x_ND @ basis_DR).T @ y_NO

    def solve(strength: float) -> Predict:
        weight_RO = target_RO / (square_R + energy / strength)[:, None]
        weight_DO = basis_DR @ weight_RO.astype(x_ND.dtype)
        return lambda x: (x - centre) @ weight_DO + mean

    return [solve(strength) for strength in strengths]


def fit_neighbours(x_ND: Array, y_NO: Array, strengths: Sequence[float]) -> list[Predict]:
    """Weighted mean of the truth of the `strength` nearest rows by cosine of the centred features.

    Weights are exp(cosine / 0.07), the k-nearest-neighbour protocol of instance discrimination (Wu et al.,
    CVPR 2018). Unknown truths are left out of the mean; where those of all neighbours are, the mean of all
    rows stands.
    """
    centre = x_ND.mean(axis=0)
    known_NO = ~np.isnan(y_NO)
    filled_NO = np.where(known_NO, y_NO, 0.0)
    prior_O = filled_NO.sum(axis=0) / np.maximum(known_NO.sum(axis=0), 1)
    unit_ND = unit(x_ND - centre)

    def neighbours(count: int) -> Predict:
        def vote(x_MD: Array) -> Array:
            cosine_MN = unit(x_MD - centre) @ unit_ND.T
            nearest_Mk = np.argpartition(-cosine_MN, count - 1, axis=1)[:, :count]
            weight_Mk = np.exp(np.take_along_axis(cosine_MN, nearest_Mk, axis=1).astype(np.float64) / 0.07)
            mass_MO = np.einsum("mk,mko->mo", weight_Mk, known_NO[nearest_Mk])
            sum_MO = np.einsum("mk,mko->mo", weight_Mk, filled_NO[nearest_Mk])
            pred_MO: Array = np.where(mass_MO > 0, sum_MO / np.where(mass_MO > 0, mass_MO, 1.0), prior_O)
            return pred_MO

        size = max(1, SIMILARITIES // len(x_ND))
        return lambda x: np.concatenate(
            [vote(x[first : first + size]) for first in range(0, max(len(x), 1), size)]
        )

    return [neighbours(min(round(strength), len(x_ND))) for strength in strengths]


def unit(x_ND: Array) -> Array:
    """Rows scaled to length 1 (rows of zeros stay zeros)."""
    length_N1: Array = np.linalg.norm(x_ND, axis=1, keepdims=True)
    unit_ND: Array = x_ND / np.maximum(length_N1, 1e-12)
    return unit_ND


def choose(
    head: Head, train: tuple[Array, Array], val: tuple[Array, Array], loss: Loss
) -> tuple[Predict, float]:
    """The fit of lowest validation loss (the simplest of equals), and its strength."""
    fits = head.fit(*train, head.strengths)
    losses = [loss(predict(val[0]), val[1]) for predict in fits]
    best = int(np.argmin(losses))
    return fits[best], head.strengths[best]


def log_loss(p_NO: Array, y_NO: Array) -> float:
    """Mean over known truths of −log of the probability given to them; each 0/1 output on its own."""
    known = ~np.isnan(y_NO)
    p = np.clip(p_NO[known], 1e-7, 1 - 1e-7)
    y = y_NO[known]
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


def squared_loss(pred_NO: Array, y_NO: Array) -> float:
    """Mean squared difference over known truths."""
    return float(np.nanmean((pred_NO - y_NO) ** 2))


def powers(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` strengths from 10^low to 10^high, evenly in the exponent."""
    return tuple(float(strength) for strength in np.logspace(low, high, count))


SOFTMAX = Head(fit_softmax, powers(-2, 3, 6))
SIGMOIDS = Head(fit_sigmoids, powers(-2, 3, 6))
RIDGE = Head(fit_ridge, powers(-2, 4, 13))
NEIGHBOURS = Head(fit_neighbours, (20.0, 10.0, 5.0, 3.0, 1.0))
