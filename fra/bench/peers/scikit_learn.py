"""Peer: scikit-learn's logistic regression of many labels in all processes that joblib starts (`n_jobs=-1`)."""

from __future__ import annotations

from collections.abc import Iterator

from joblib.externals.loky import get_reusable_executor
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import StandardScaler

from fra.bench.measure import Work
from fra.bench.peers.serve import serve
from fra.bench.probe import synthetic_features
from fra.transfer.heads import SIGMOIDS


def prepare(images: int, features: int, labels: int) -> Work:
    """Returns fitting all labels with each regularisation of our probe; it yields the number of models."""
    x_ND, y_NO = synthetic_features(images, features, labels)

    def run() -> Iterator[int]:
        scaled_ND = StandardScaler().fit_transform(x_ND)
        for inverse_penalty in SIGMOIDS.grid:
            model = LogisticRegression(C=inverse_penalty / images, max_iter=1000)
            MultiOutputClassifier(model, n_jobs=-1).fit(scaled_ND, y_NO)
            yield labels
        get_reusable_executor().shutdown(
            wait=True
        )  # the CPU seconds of its processes count when they have ended

    return run


if __name__ == "__main__":
    serve(prepare)
