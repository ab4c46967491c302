"""Label-free measures of a representation, from features alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

MEASURES = ("rankme", "alignment", "uniformity", "alpha_req")
"""Names of the values that `measures` returns, in order."""

FIRST_RANK, LAST_RANK = 6, 50
"""Ranks of the eigenvalues whose power law `alpha_req` fits, as the authors' code has them (counted from 1)."""


def measures(whole_ND: Array, first_ND: Array, second_ND: Array) -> dict[str, float]:
    """Returns all measures of a backbone's pooled features, by name.

    The mean feature of the whole images is subtracted first: pooled features behind a ReLU share a large positive part,
    which says nothing about differences between images.

    Args:
        whole_ND: Features of N whole images.
        first_ND: Features of the first augmented view of each image.
        second_ND: Features of the second view.
    """
    mean_D = whole_ND.mean(axis=0, dtype=np.float64)
    centred_ND = whole_ND - mean_D
    return {
        "rankme": rankme(centred_ND),
        "alignment": alignment(unit(first_ND - mean_D), unit(second_ND - mean_D)),
        "uniformity": uniformity(unit(centred_ND)),
        "alpha_req": alpha_req(centred_ND),
    }


def rankme(x_ND: Array) -> float:
    """Returns the effective rank of features: the exponential of the entropy of their singular values.

    1 when all images differ along one direction, at most min(N, D); higher is better (Garrido et al. 2023, "RankMe",
    arXiv 2210.02885, equation 1).
    """
    share = np.linalg.svd(x_ND.astype(np.float64), compute_uv=False)
    total = share.sum()
    if not total:
        return 1.0
    share = share[share > 0] / total
    return math.exp(-float(np.sum(share * np.log(share))))


def alignment(unit_ND: Array, other_ND: Array) -> float:
    """Returns the mean squared distance between the features of two views of an image.

    0 when views of an image are alike, 2 when they are unrelated; lower is better (Wang and Isola 2020, "Understanding
    contrastive representation learning", arXiv 2005.10242, with exponent 2).

    Args:
        unit_ND: Features of one view, of length 1.
        other_ND: Features of the other view, of length 1.
    """
    return float(np.mean(np.sum((unit_ND.astype(np.float64) - other_ND) ** 2, axis=1)))


def uniformity(unit_ND: Array) -> float:
    """Returns the logarithm of the mean of exp(−2 d²) over all pairs of images at distance d.

    0 when all images are at one point, about −4 when they are spread evenly over a sphere of many dimensions; lower is
    better (Wang and Isola 2020, arXiv 2005.10242, with t = 2).

    Args:
        unit_ND: Features of at least two images, of length 1.
    """
    cosine_NN = unit_ND.astype(np.float64) @ unit_ND.T
    upper_P = cosine_NN[np.triu_indices(len(unit_ND), 1)]
    return math.log(float(np.mean(np.exp(-4 * (1 - upper_P)))))  # d² = 2 − 2 cosine


def alpha_req(x_ND: Array) -> float:
    """Returns the exponent α of the power law rank^−α that the eigenvalues of the covariance follow; NaN for too few.

    Larger values mean that fewer directions carry the variance; about 1 is best (Agrawal et al. 2022, "α-ReQ").
    Fitted on logarithms over the ranks `FIRST_RANK` to `LAST_RANK`, each weighted by 1/rank, as in the authors' code
    (after Stringer et al. 2019); eigenvalues that are zero within rounding are left out.

    Args:
        x_ND: Centred features.
    """
    value_R = np.linalg.svd(x_ND.astype(np.float64), compute_uv=False) ** 2
    value_R = value_R[value_R > value_R[0] * 1e-12]
    rank = np.arange(FIRST_RANK, min(LAST_RANK, len(value_R)) + 1)
    if len(rank) < 2:
        return math.nan
    slope, _ = np.polyfit(
        np.log(rank), np.log(value_R[rank - 1]), 1, w=rank**-0.5
    )  # polyfit squares the weights
    return -float(slope)


def unit(x_ND: Array) -> Array:
    """Returns rows divided by their length; rows of zeros stay."""
    return np.asarray(x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12))
