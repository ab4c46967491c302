"""Facial actions from 68 landmarks: real numbers that rise with the activity of a muscle group (FACS action units).

Geometric measures of this kind are common as a stand-in for action units where only landmarks are known (Tian, Kanade
and Cohn, TPAMI 2001; Pantic and Rothkrantz, TSMC-B 2004). They describe a shape, not a change from a neutral face: a
person with high brows has a high value at rest.

Pose is removed in two steps. `facial_actions` turns the face upright (eyes level) and divides heights by the length of
the nose (points 27 to 33) and widths by the distance of the outer eye corners (36 to 45). What is left of a nod or a
turn is the mean at each pose, a polynomial that `without_pose` fits and subtracts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def facial_actions(point_N682: NDArray[np.float64]) -> pd.DataFrame:
    """Return the facial actions of faces with landmarks in the order of iBUG 300-W: one row per face.

    `brow_raise`: brows above the eyes (AU 1 and 2). `lip_corner_pull`: mouth corners above the middle of the mouth (AU
    12). `jaw_drop`: chin below the nose (AU 26). `mouth_width`: distance of the mouth corners (AU 20; low: AU 18).
    """
    face = upright(point_N682)
    x, y = face[..., 0], face[..., 1]
    height, width = y[:, 33] - y[:, 27], x[:, 45] - x[:, 36]
    return pd.DataFrame(
        {
            "brow_raise": (y[:, 36:48].mean(axis=1) - y[:, 17:27].mean(axis=1)) / height,
            "lip_corner_pull": (y[:, [51, 57]].mean(axis=1) - y[:, [48, 54]].mean(axis=1)) / height,
            "jaw_drop": (y[:, 8] - y[:, 33]) / height,
            "mouth_width": (x[:, 54] - x[:, 48]) / width,
        }
    )


def upright(point_N682: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the landmarks turned about the image's origin so that the line through the eyes is level: (N, 68, 2)."""
    left, right = point_N682[:, 36:42].mean(axis=1), point_N682[:, 42:48].mean(axis=1)
    angle_N = np.arctan2(right[:, 1] - left[:, 1], right[:, 0] - left[:, 0])
    cosine, sine = np.cos(angle_N)[:, None], np.sin(angle_N)[:, None]
    x, y = point_N682[..., 0], point_N682[..., 1]
    return np.stack([cosine * x + sine * y, cosine * y - sine * x], axis=-1)


def without_pose(
    actions: pd.DataFrame, yaw_N: NDArray[np.float64], pitch_N: NDArray[np.float64], fit: slice
) -> pd.DataFrame:
    """Return the actions minus their mean at each pose: a polynomial of degree 4 in yaw and pitch, fitted to some rows.

    Args:
        actions: One row per face.
        yaw_N: Degrees.
        pitch_N: Degrees.
        fit: The rows to fit the polynomial to (training faces).
    """
    powers = [(i, j) for i in range(5) for j in range(5 - i)]
    design_NP = np.stack([(yaw_N / 45) ** i * (pitch_N / 45) ** j for i, j in powers], axis=1)
    weight_PA = np.linalg.lstsq(design_NP[fit], actions.to_numpy()[fit], rcond=None)[0]
    residual_NA = actions.to_numpy() - design_NP @ weight_PA
    return pd.DataFrame(residual_NA.round(4), actions.index, actions.columns)
