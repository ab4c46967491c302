"""The linear probe of many labels beside scikit-learn's logistic regression, label by label; one run."""

from __future__ import annotations

import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fra.transfer.heads import SIGMOIDS, Array, log_loss

FACTORS = 64
"""What made-up features and labels have in common; features of a backbone are correlated too."""


def made_up(images: int, features: int, labels: int) -> tuple[Array, Array]:
    """Features (N, D) ≥ 0, as after a ReLU, and labels (N, O), some rare, that they tell in part."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((images, FACTORS), dtype=np.float32)
    mixed = factors @ rng.standard_normal((FACTORS, features), dtype=np.float32)
    x_ND = np.maximum(mixed + 0.5 * rng.standard_normal((images, features), dtype=np.float32), 0)
    score_NO = factors @ rng.standard_normal((FACTORS, labels)) + 4 * rng.standard_normal((images, labels))
    return x_ND, (score_NO > np.linspace(0, 14, labels)).astype(float)


def one_by_one(x_ND: Array, y_NO: Array) -> list[list[LogisticRegression]]:
    """Return a model by scikit-learn for each regularisation and label."""
    count = len(x_ND)
    return [
        [LogisticRegression(C=inverse_penalty / count, max_iter=1000).fit(x_ND, y_N) for y_N in y_NO.T]
        for inverse_penalty in SIGMOIDS.grid
    ]


def probing(images: int, features: int, labels: int) -> dict[str, float | int]:
    """Compare the time for all regularisations of the probe, and the training loss at the weakest one.

    The weakest regularisation is the hardest to fit.
    """
    x_ND, y_NO = made_up(images, features, labels)
    start = time.perf_counter()
    ours = SIGMOIDS.fit(x_ND, y_NO, SIGMOIDS.grid)
    middle = time.perf_counter()
    scaled_ND = StandardScaler().fit_transform(x_ND)
    theirs = one_by_one(scaled_ND, y_NO)
    end = time.perf_counter()
    their_p_NO = np.stack([model.predict_proba(scaled_ND)[:, 1] for model in theirs[-1]], axis=1)
    return {
        "images": images,
        "features": features,
        "labels": labels,
        "regularisations": len(SIGMOIDS.grid),
        "seconds": middle - start,
        "scikit_learn_seconds": end - middle,
        "ratio": (end - middle) / (middle - start),
        "loss": log_loss(ours[-1](x_ND), y_NO),
        "scikit_learn_loss": log_loss(their_p_NO, y_NO),
    }
