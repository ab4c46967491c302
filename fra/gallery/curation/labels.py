"""Labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_predict

FOLDS = 5
"""Folds of the cross-validated probe."""
SEED = 0


def label_errors(unit_ND: NDArray[np.float32], labels: Sequence[str], limit: float) -> pd.DataFrame:
    """Suggests images whose label is probably wrong, by confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    A cross-validated linear discriminant analysis gives the probability of each class. An image counts as a member of a
    class where that probability is at least the mean of the class's own images; it is suggested where the most probable
    class of those differs from its label, by a margin of more than `limit`. (The library for it, cleanlab 2.7.1, needs
    NumPy 1, and its licence is the AGPL; on the embedded faces it finds the same images, one of 60 aside.)

    Raises:
        ValueError: Fewer than two labels have as many images as there are folds.
    """
    label_N = np.array(labels)
    common = [
        name
        for name, number in zip(*np.unique(label_N[label_N != ""], return_counts=True), strict=True)
        if number >= FOLDS
    ]
    if len(common) < 2:
        raise ValueError(
            f"label errors need two labels with at least {FOLDS} images each; {len(common)} found"
        )
    rows = np.flatnonzero(np.isin(label_N, common))
    classes, class_R = np.unique(label_N[rows], return_inverse=True)
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    p_RC = cross_val_predict(probe, unit_ND[rows], class_R, cv=folds, method="predict_proba")
    least_C = np.array([p_RC[class_R == number, number].mean() for number in range(len(classes))])
    other_R = np.where(p_RC >= least_C, p_RC, -1).argmax(axis=1)
    own_R = p_RC[np.arange(len(rows)), class_R]
    best_R = p_RC[np.arange(len(rows)), other_R]
    wrong_R = (best_R >= least_C[other_R]) & (other_R != class_R) & (best_R - own_R > limit)
    found = pd.DataFrame({"score": np.nan, "suggested": False, "label": label_N, "other_label": ""})
    found.loc[rows, "score"] = p_RC.max(axis=1) - own_R
    found.loc[rows, "suggested"] = wrong_R
    found.loc[rows[wrong_R], "other_label"] = classes[other_R[wrong_R]]
    return found
