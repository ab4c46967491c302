"""Heads on frozen features.

``fit(x_ND, y_NO, grid)`` returns one function ``predict(x_MD) -> (M, O)`` for each value in `grid`; linear heads return
a `LinearHead`, which can be stored. `y` has one column per output, NaN where the truth is unknown; a class is a one-hot
row. Each head has one regularisation parameter, chosen on validation subjects by `choose`: the inverse of the penalty
for linear heads, the number of neighbours for k-NN.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

# SciPy and scikit-learn are imported by the functions that fit: the import takes 1.5 s, and prediction needs less.
if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Predict = Callable[[Array], Array]
Fit = Callable[[Array, Array, Sequence[float]], list[Predict]]
Loss = Callable[[Array, Array], float]

Activation = Literal["softmax", "sigmoid", "none"]

SIMILARITIES = 1 << 24
"""Most similarities computed at a time by k-NN; all of CelebA's would not fit into memory."""


@dataclass(frozen=True)
class Head:
    """A head and the values of its regularisation parameter to try, from the most to the least regularised."""

    fit: Fit
    grid: tuple[float, ...]


@dataclass(frozen=True)
class LinearHead:
    """A fitted linear head: ``activation(((x − centre) / scale) @ weightᵀ + bias)``.

    Attributes:
        activation: What turns outputs into scores. With "softmax", a single output F = 1 stands for two classes and is
            the log odds of the second one.
        centre_D: Subtracted from features.
        scale_D: Features are divided by it.
        weight_FD: Weights of the F fitted outputs.
        bias_F: Added to these outputs.
        fitted_S: Numbers of the outputs whose scores are computed; sorted.
        constant_O: Scores of all O outputs; they are kept where an output is not fitted, because training had one
            value.
    """

    activation: Activation
    centre_D: Array
    scale_D: Array
    weight_FD: Array
    bias_F: Array
    fitted_S: Array
    constant_O: Array

    def __call__(self, x_MD: Array) -> Array:
        """Return scores (M, O), float64."""
        score_MO: Array = np.tile(np.asarray(self.constant_O, np.float64), (len(x_MD), 1))
        if len(self.fitted_S):
            raw_MF = ((x_MD - self.centre_D) / self.scale_D) @ self.weight_FD.T + self.bias_F
            score_MO[:, self.fitted_S] = activate(raw_MF, self.activation)
        return score_MO


def activate(raw_MF: Array, activation: Activation) -> Array:
    """Return the scores of the outputs of a linear head, see `LinearHead`."""
    if activation == "none":
        return raw_MF
    if activation == "softmax" and raw_MF.shape[1] > 1:
        odds_MF: Array = np.exp(raw_MF - raw_MF.max(axis=1, keepdims=True))
        odds_MF /= odds_MF.sum(axis=1, keepdims=True)
        return odds_MF
    from scipy.special import expit

    p_MF: Array = expit(raw_MF)
    return np.hstack([1 - p_MF, p_MF]) if activation == "softmax" else p_MF


def standardisation(scaler: StandardScaler, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return centre and scale (D,) of a scaler, in the type in which it transforms features of `dtype`."""
    return scaler.mean_.astype(dtype), scaler.scale_.astype(dtype)


def fit_softmax(x_ND: Array, y_NO: Array, grid: Sequence[float]) -> list[Predict]:
    """Fit a linear probe for one of O classes; it predicts probabilities.

    Multinomial logistic regression on standardised features, with scikit-learn's C = value / N. A class without a
    training example gets probability 0, so with a single class that class is always predicted.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    known = ~np.isnan(y_NO).any(axis=1)
    x_ND, label_N = x_ND[known], y_NO[known].argmax(axis=1)
    seen, classes = np.unique(label_N), y_NO.shape[1]
    scaler = StandardScaler().fit(x_ND)
    x_ND = scaler.transform(x_ND)
    centre_D, scale_D = standardisation(scaler, x_ND.dtype)
    if len(seen) == 1:
        weight_FD, bias_F = np.zeros((0, x_ND.shape[1])), np.zeros(0)
        always = np.eye(classes)[seen[0]]
        return [
            LinearHead("softmax", centre_D, scale_D, weight_FD, bias_F, np.zeros(0, np.intp), always)
        ] * len(grid)

    def fit(inverse_penalty: float) -> Predict:
        model = LogisticRegression(C=inverse_penalty / len(x_ND), max_iter=1000).fit(x_ND, label_N)
        return LinearHead(
            "softmax", centre_D, scale_D, model.coef_, model.intercept_, seen, np.zeros(classes)
        )

    return [fit(value) for value in grid]


def fit_sigmoids(x_ND: Array, y_NO: Array, grid: Sequence[float]) -> list[Predict]:
    """Fit a linear probe for O binary labels; it predicts probabilities of 1.

    Logistic regression of all labels at once (`logistic_regression`), on features standardised over all rows; each
    label is fitted to its known rows. A label that is constant in training is predicted as that constant.

    Raises:
        ValueError: An output has no known row.
    """
    from sklearn.preprocessing import StandardScaler

    known_NO = ~np.isnan(y_NO)
    if (empty := ~known_NO.any(axis=0)).any():
        raise ValueError(
            f"no training image has a known value of label number {int(np.flatnonzero(empty)[0])}"
        )
    scaler = StandardScaler().fit(x_ND)
    x_ND = scaler.transform(x_ND)
    dtype = x_ND.dtype
    centre_D, scale_D = standardisation(scaler, dtype)
    share_NO = (known_NO / known_NO.sum(axis=0)).astype(dtype)
    y_NO = np.where(known_NO, y_NO, 0).astype(dtype)
    rate_O = y_NO.sum(axis=0, dtype=np.float64) / known_NO.sum(axis=0)
    varies_O = (rate_O > 0) & (rate_O < 1)
    basis_DR, square_R = principal_directions(x_ND)
    z_NR = x_ND @ basis_DR

    def predictor(weight_RO: Array) -> Predict:
        weight_DF = basis_DR @ weight_RO[:-1].astype(dtype)
        fitted_S = np.flatnonzero(varies_O)
        return LinearHead("sigmoid", centre_D, scale_D, weight_DF.T, weight_RO[-1], fitted_S, rate_O)

    weight_RO = np.zeros((len(square_R) + 1, int(varies_O.sum())))
    predictors = []
    for value in grid:
        weight_RO = logistic_regression(
            z_NR, square_R, y_NO[:, varies_O], share_NO[:, varies_O], value, weight_RO
        )
        predictors.append(predictor(weight_RO))
    return predictors


def logistic_regression(
    z_NR: Array, square_R: Array, y_NO: Array, share_NO: Array, inverse_penalty: float, start_RO: Array
) -> Array:
    """Fit O logistic regressions at once on uncorrelated features, by L-BFGS.

    Minimises, per label, the weighted mean of the log loss + ‖w‖² / (2 · inverse_penalty): scikit-learn's objective at
    C = inverse_penalty / N. Each direction is scaled by the bound on its curvature, mean square / 4 + 1 /
    inverse_penalty (Böhning & Lindsay 1988), so that few iterations are needed for any penalty.

    Args:
        z_NR: Features with uncorrelated columns.
        square_R: Sum of squares of each column.
        y_NO: Labels, 0 or 1.
        share_NO: Weight of each row in the loss of each label; sums to 1 over rows.
        inverse_penalty: Inverse regularisation.
        start_RO: Initial weights, intercepts in the last row.

    Returns:
        Weights (R + 1, O), intercepts in the last row.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    shape, dtype = start_RO.shape, z_NR.dtype
    if not start_RO.size:
        return start_RO
    penalty_R1 = np.append(np.full(len(square_R), 1 / inverse_penalty), 0)[:, None]
    scale_R1 = (np.append(square_R / len(z_NR), 1)[:, None] / 4 + penalty_R1) ** -0.5

    def loss(flat: Array) -> tuple[float, Array]:
        weight_RO = scale_R1 * flat.reshape(shape)
        logit_NO = z_NR @ weight_RO[:-1].astype(dtype) + weight_RO[-1].astype(dtype)
        loss_NO = np.maximum(logit_NO, 0) - y_NO * logit_NO + np.log1p(np.exp(-np.abs(logit_NO)))
        value = np.sum(share_NO * loss_NO, dtype=np.float64) + np.sum(penalty_R1 * weight_RO**2) / 2
        error_NO = share_NO * (expit(logit_NO) - y_NO)
        gradient_RO = np.vstack([z_NR.T @ error_NO, error_NO.sum(axis=0)]) + penalty_R1 * weight_RO
        return float(value), (scale_R1 * gradient_RO).ravel()

    options = {"gtol": 5e-5, "ftol": 0.0, "maxiter": 1000}
    found = minimize(loss, (start_RO / scale_R1).ravel(), jac=True, method="L-BFGS-B", options=options)
    if (gradient := np.abs(found.jac).max()) > 1e-3:
        logger.warning(
            "logistic regression with inverse penalty %g: stopped after %d iterations at a gradient of %.1e: %s",
            *(inverse_penalty, found.nfev, gradient, found.message),
        )
    weight_RO: Array = scale_R1 * found.x.reshape(shape)
    return weight_RO


def principal_directions(x_ND: Array) -> tuple[Array, Array]:
    """Return the R ≤ min(N, D) principal directions: orthonormal (D, R), and the sum of squares along each (R,).

    From one eigendecomposition of the smaller of the two Gram matrices, which keeps whole feature maps of a few hundred
    images cheap. With fewer rows than features, directions below rounding error are left out.
    """
    dual = len(x_ND) < x_ND.shape[1]
    square_R, vectors = np.linalg.eigh((x_ND @ x_ND.T if dual else x_ND.T @ x_ND).astype(np.float64))
    if not dual:
        return vectors.astype(x_ND.dtype), np.maximum(square_R, 0)
    kept = square_R > square_R[-1] * np.finfo(x_ND.dtype).eps
    square_R, vectors = square_R[kept], vectors[:, kept]
    return x_ND.T @ (vectors / np.sqrt(square_R)).astype(x_ND.dtype), square_R


def fit_ridge(x_ND: Array, y_NO: Array, grid: Sequence[float]) -> list[Predict]:
    """Fit linear regressions with the L2 penalty ``mean squared norm of the centred features / value``.

    A value therefore means the same for features of any scale and dimension. One decomposition serves all values.
    """
    known = ~np.isnan(y_NO).any(axis=1)
    x_ND, y_NO = x_ND[known], y_NO[known]
    centre, mean = x_ND.mean(axis=0), y_NO.mean(axis=0)
    x_ND, y_NO = x_ND - centre, y_NO - mean
    energy = max(float(np.sum(np.square(x_ND), dtype=np.float64)) / len(x_ND), 1e-12)
    basis_DR, square_R = principal_directions(x_ND)
    target_RO = (x_ND @ basis_DR).T @ y_NO

    def solve(inverse_penalty: float) -> Predict:
        weight_RO = target_RO / (square_R + energy / inverse_penalty)[:, None]
        weight_DO = basis_DR @ weight_RO.astype(x_ND.dtype)
        outputs = np.arange(len(mean))
        return LinearHead("none", centre, np.ones_like(centre), weight_DO.T, mean, outputs, mean)

    return [solve(value) for value in grid]


def fit_neighbours(x_ND: Array, y_NO: Array, grid: Sequence[float]) -> list[Predict]:
    """Fit k-nearest neighbours by cosine of the centred features; k are the values of `grid`.

    Predicts the weighted mean of the neighbours' truths, with weights exp(cosine / 0.07): the k-NN protocol of instance
    discrimination (Wu et al., CVPR 2018). Unknown truths are left out; where all neighbours' truths are unknown, the
    mean over all rows is predicted.
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

    return [neighbours(min(round(count), len(x_ND))) for count in grid]


def unit(x_ND: Array) -> Array:
    """Return the rows scaled to length 1; rows of zeros stay zeros."""
    length_N1: Array = np.linalg.norm(x_ND, axis=1, keepdims=True)
    unit_ND: Array = x_ND / np.maximum(length_N1, 1e-12)
    return unit_ND


def choose(
    head: Head, train: tuple[Array, Array], val: tuple[Array, Array], loss: Loss
) -> tuple[Predict, float]:
    """Return the fit of lowest validation loss (the most regularised of equals) and its regularisation parameter.

    Raises:
        RuntimeError: No fit has a finite validation loss.
    """
    fits = head.fit(*train, head.grid)
    losses = [loss(predict(val[0]), val[1]) for predict in fits]
    if not np.isfinite(losses).any():
        raise RuntimeError("no head has a finite validation loss: are the backbone's features finite?")
    best = int(np.nanargmin(losses))
    return fits[best], head.grid[best]


def log_loss(p_NO: Array, y_NO: Array) -> float:
    """Return the binary log loss, the mean over all known truths (0 or 1)."""
    known = ~np.isnan(y_NO)
    p = np.clip(p_NO[known], 1e-7, 1 - 1e-7)
    y = y_NO[known]
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


def squared_loss(pred_NO: Array, y_NO: Array) -> float:
    """Return the mean squared error over known truths; NaN where a prediction of one is NaN."""
    known = ~np.isnan(y_NO)
    return float(np.mean((pred_NO[known] - y_NO[known]) ** 2))


def powers(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return `count` values from 10^low to 10^high, evenly spaced in the exponent."""
    return tuple(float(value) for value in np.logspace(low, high, count))


SOFTMAX = Head(fit_softmax, powers(-2, 3, 6))
SIGMOIDS = Head(fit_sigmoids, powers(-2, 3, 6))
RIDGE = Head(fit_ridge, powers(-2, 4, 13))
NEIGHBOURS = Head(fit_neighbours, (20.0, 10.0, 5.0, 3.0, 1.0))
