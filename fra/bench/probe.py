"""The linear probe of many binary labels, compared with scikit-learn's logistic regression label by label."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fra.bench.measure import alternate, compared, comparison, measure
from fra.bench.peers.process import Peer, running
from fra.transfer.heads import SIGMOIDS, Array, log_loss

FACTORS = 64
"""Number of factors that generate the synthetic features and labels; a backbone's features are correlated too."""


def synthetic_features(images: int, features: int, labels: int) -> tuple[Array, Array]:
    """Returns features (N, D) ≥ 0, as after a ReLU, and binary labels (N, O) that depend on them, some rare."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((images, FACTORS), dtype=np.float32)
    mixed = factors @ rng.standard_normal((FACTORS, features), dtype=np.float32)
    x_ND = np.maximum(mixed + 0.5 * rng.standard_normal((images, features), dtype=np.float32), 0)
    score_NO = factors @ rng.standard_normal((FACTORS, labels)) + 4 * rng.standard_normal((images, labels))
    return x_ND, (score_NO > np.linspace(0, 14, labels)).astype(float)


def fit_one_by_one(x_ND: Array, y_NO: Array) -> list[list[LogisticRegression]]:
    """Returns scikit-learn's model of each label, for each regularisation of our probe."""
    count = len(x_ND)
    return [
        [LogisticRegression(C=inverse_penalty / count, max_iter=1000).fit(x_ND, y_N) for y_N in y_NO.T]
        for inverse_penalty in SIGMOIDS.grid
    ]


def compare_with_peer(peer: Peer, images: int, features: int, labels: int, rounds: int = 1) -> dict[str, Any]:
    """Compares our probe of all labels and regularisations with a peer's on the same synthetic features.

    Returns:
        `baseline` (the peer) and `ours` in fitted models per second, `ratio` and `cpu_ratio`.

    Raises:
        RuntimeError: The peer cannot be installed or fails.
    """
    x_ND, y_NO = synthetic_features(images, features, labels)

    def ours() -> Iterator[int]:
        SIGMOIDS.fit(x_ND, y_NO, SIGMOIDS.grid)
        yield labels * len(SIGMOIDS.grid)

    sizes = {"images": images, "features": features, "labels": labels}
    with running(peer, sizes) as baseline:
        taken = alternate({"baseline": baseline, "ours": partial(measure, ours)}, rounds)
    return {**compared(taken, "models/s"), "peer": peer.name, **sizes, "rounds": rounds}


def compare_probes(images: int, features: int, labels: int) -> dict[str, Any]:
    """Compares our probe of all labels and regularisations with scikit-learn on synthetic features.

    Returns:
        `baseline` (scikit-learn) and `ours` in fitted models (one per label and regularisation) per second, `ratio`,
        the seconds of both, and the training loss of both at the weakest regularisation, the hardest to fit.
    """
    x_ND, y_NO = synthetic_features(images, features, labels)
    start = time.perf_counter()
    ours = SIGMOIDS.fit(x_ND, y_NO, SIGMOIDS.grid)
    middle = time.perf_counter()
    scaled_ND = StandardScaler().fit_transform(x_ND)
    theirs = fit_one_by_one(scaled_ND, y_NO)
    end = time.perf_counter()
    their_p_NO = np.stack([model.predict_proba(scaled_ND)[:, 1] for model in theirs[-1]], axis=1)
    models = labels * len(SIGMOIDS.grid)
    return {
        **comparison(models / (end - middle), models / (middle - start), "models/s"),
        "baseline_seconds": end - middle,
        "ours_seconds": middle - start,
        "baseline_loss": log_loss(their_p_NO, y_NO),
        "ours_loss": log_loss(ours[-1](x_ND), y_NO),
        "images": images,
        "features": features,
        "labels": labels,
        "regularisations": len(SIGMOIDS.grid),
    }
