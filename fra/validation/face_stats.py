"""Measurements of the faces in an image: how many, how sure, how large, where, and how they are turned."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from fra.faces.config import MIN_SCORE
from fra.faces.detect import Face, Pixels, Points, resize
from fra.faces.yunet import YuNet

SIDE = 160
"""Longer side, in pixels, at which an image is searched: faces from about a tenth of it up are found. A small image is
enlarged, because YuNet looks repeatedly at faces of few pixels."""
MIN_SIDE = 10
"""An image whose shorter side is shorter at that scale, such as a panorama, counts as one without a face."""
ANGLES = {180: 0.9, 45: 0.85, -45: 0.85, 90: 0.85, -90: 0.85, 135: 0.85, -135: 0.85}
"""Rotated copies that an image is searched in again: their angles in degrees, and the score from which on an upright
face is certain. (Upside down, many faces still have a score of 0.85 to 0.9.)"""
ROTATED_SIDE = 112
"""Longer side, in pixels, of these copies."""
MARGIN = 0.03
"""By how much the score in a rotated copy must be higher for the face to count as rotated."""
AS_LARGE = 0.5
"""Faces are counted whose longer side is at least this share of the largest face's."""
NOSE_DEPTH = 0.45
"""How far the tip of the nose is in front of the eyes, in distances of the eyes (about 28 mm and 63 mm)."""


@dataclass(frozen=True)
class FaceStats:
    """Measurements of an image; they are NaN where they need a face and none was found.

    Attributes:
        faces: Number of faces with a sufficient score, those in the background aside (see `AS_LARGE`).
        face_score: The highest score, 0 for none.
        face_share: The longer side of the largest face's box, as a share of the image's longer side.
        face_offset: How far the centre of that box is from the image's, in widths or heights, whichever is more.
        face_roll: By how many degrees the face is rotated in the image plane, a multiple of 45 from 0 to 180.
        face_yaw: A rough estimate, in degrees, of how far the face is turned to the right of the image.
    """

    faces: float
    face_score: float
    face_share: float = np.nan
    face_offset: float = np.nan
    face_roll: float = np.nan
    face_yaw: float = np.nan


@dataclass(frozen=True)
class ImageFaces:
    """The faces in an image.

    Attributes:
        stats: Their measurements.
        corners: The corners (4, 2) of each counted face's box, the largest first, as shares of width and height.
    """

    stats: FaceStats
    corners: list[Points] = field(default_factory=list)


class FaceFinder:
    """Finds the faces in images, with one detector (YuNet) per thread.

    The five points of YuNet hardly follow a rotation in the image plane (30° is measured as 4°), but its score falls.
    The detector's own search of rotated proposals is switched off, as it would hide that fall.
    So the rotation is not read from the points: an image without a certain face is searched in rotated copies.
    """

    def __init__(self, min_score: float) -> None:
        """Loads the detector's weights.

        Args:
            min_score: Lowest score of a face that is counted.

        Raises:
            FileNotFoundError: The package with the weights is not installed.
            ValueError: The weights are not the known ones.
        """
        self.min_score = min_score
        self._of_thread = threading.local()
        self._of_thread.detector = YuNet(MIN_SCORE, tilted=False)

    def find(self, image_HW3: Pixels) -> ImageFaces:
        """Finds the faces in an image."""
        small = at_side(image_HW3, SIDE)
        if min(small.shape[:2]) < MIN_SIDE:
            return ImageFaces(FaceStats(0, 0))
        faces = self._detector().detect(small)
        score = max((face.score for face in faces), default=0.0)
        return self._find_rotated(small, score) or self._faces(faces, small, None, 0)

    def _find_rotated(self, small_HW3: Pixels, score: float) -> ImageFaces | None:
        """The faces at the angle at which the score is highest; None where it is not clearly above `score`."""
        smaller = at_side(small_HW3, ROTATED_SIDE)
        best, best_score = None, max(score, self.min_score) + MARGIN
        for angle in [angle for angle, certain in ANGLES.items() if score < certain]:
            copy, back_23 = rotate(smaller, angle)
            faces = self._detector().detect(copy)
            highest = max((face.score for face in faces), default=0.0)
            if highest > best_score:
                best, best_score = (faces, back_23, abs(angle)), highest
        return None if best is None else self._faces(best[0], smaller, best[1], best[2])

    def _faces(
        self, faces: Sequence[Face], image_HW3: Pixels, back_23: Points | None, roll: float
    ) -> ImageFaces:
        """The faces of a search; `back_23` leads from the pixels of a rotated copy to those of the image."""
        score = max((face.score for face in faces), default=0.0)
        certain = sorted(
            (face for face in faces if face.score >= self.min_score), key=lambda face: -max(face.box[2:])
        )
        if not certain:
            return ImageFaces(FaceStats(0, score))
        largest = certain[0]
        counted = [face for face in certain if max(face.box[2:]) >= AS_LARGE * max(largest.box[2:])]
        size_2 = np.array([image_HW3.shape[1], image_HW3.shape[0]], np.float64)
        corners = [moved(corners_of(face), back_23) / size_2 for face in counted]
        return ImageFaces(
            FaceStats(
                faces=len(counted),
                face_score=score,
                face_share=max(largest.box[2:]) / max(size_2),
                face_offset=float(np.abs(corners[0].mean(axis=0) - 0.5).max()),
                face_roll=roll,
                face_yaw=yaw(largest.points_52),
            ),
            corners,
        )

    def _detector(self) -> YuNet:
        if not hasattr(self._of_thread, "detector"):
            self._of_thread.detector = YuNet(MIN_SCORE, tilted=False)
        found: YuNet = self._of_thread.detector
        return found


def at_side(image_HW3: Pixels, side: int) -> Pixels:
    """The image with its longer side enlarged or reduced to `side` pixels."""
    height, width = image_HW3.shape[:2]
    scale = side / max(height, width)
    return resize(image_HW3, (max(1, round(width * scale)), max(1, round(height * scale))))


def rotate(image_HW3: Pixels, angle: float) -> tuple[Pixels, Points]:
    """The whole image rotated counter-clockwise by `angle` degrees, and the transform (2, 3) back to its pixels."""
    height, width = image_HW3.shape[:2]
    move_23 = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    cos, sin = abs(move_23[0, 0]), abs(move_23[0, 1])
    size = int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos))
    move_23[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    copy = cv2.warpAffine(image_HW3, move_23, size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(copy, np.uint8), np.asarray(cv2.invertAffineTransform(move_23))


def corners_of(face: Face) -> Points:
    """The corners (4, 2) of a face's box, in order around it."""
    left, top, width, height = face.box
    return np.array(
        [[left, top], [left + width, top], [left + width, top + height], [left, top + height]], np.float64
    )


def moved(points_P2: Points, transform_23: Points | None) -> Points:
    """Points (P, 2) after an affine transform, or unchanged where there is none."""
    if transform_23 is None:
        return points_P2
    return np.asarray(points_P2 @ transform_23[:, :2].T + transform_23[:, 2])


def yaw(points_52: Points) -> float:
    """How many degrees a face is turned to the right of the image, from where its nose is between the eyes.

    Turned by an angle, the nose moves by its depth times the sine, and the eyes come closer by the cosine.
    """
    eyes_2 = points_52[1] - points_52[0]
    distance = float(np.hypot(*eyes_2))
    if distance == 0:
        return float("nan")
    shift = float((points_52[2] - (points_52[0] + points_52[1]) / 2) @ eyes_2) / distance**2
    return float(np.degrees(np.arctan(shift / NOSE_DEPTH)))
