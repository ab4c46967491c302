"""Which of the faces found in a photograph are cropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fra.faces.config import FacesConfig
from fra.faces.crop import box_transform, crop
from fra.faces.detect import Detector, Face, Pixels, Points, merge
from fra.faces.sharpness import SIDE, sharpness

NUMBERS = 16
"""Numbers of a face that are stored: box (4), points (10), score, sharpness."""

PANORAMA = 2.5
"""A photograph whose longer side is more than this many times the shorter one is searched in parts, too."""


class FoundFace(NamedTuple):
    """A detected face, and the sharpness of its box."""

    face: Face
    sharpness: float

    @property
    def side(self) -> float:
        """The longer side of its box, in pixels of the photograph."""
        return max(self.face.box[2:])

    def numbers(self) -> list[float]:
        """The face as `NUMBERS` numbers, see `from_numbers`."""
        return [*self.face.box, *self.face.points_52.ravel().tolist(), self.face.score, self.sharpness]


def from_numbers(values: Sequence[float]) -> list[FoundFace]:
    """The faces in a flat list with `NUMBERS` numbers each."""
    row_F16 = np.asarray(values, np.float64).reshape(-1, NUMBERS)
    return [
        FoundFace(
            Face((row[0], row[1], row[2], row[3]), np.array(row[4:14]).reshape(5, 2), row[14]),
            row[15],
        )
        for row in row_F16.tolist()
    ]


def find(photo_HW3: Pixels, detector: Detector) -> list[FoundFace]:
    """All faces that a detector finds in an upright RGB photograph, highest score first."""
    found = []
    for face in detector.follow_tilt(photo_HW3, search(photo_HW3, detector)):
        part = crop(photo_HW3, box_transform(face.box, SIDE, margin=0.0), SIDE)
        found.append(FoundFace(face, sharpness(np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), np.uint8))))
    return found


def search(photo_HW3: Pixels, detector: Detector) -> list[Face]:
    """The faces in a photograph; a panorama is searched as a whole and in parts.

    A detector searches a photograph at sizes that depend on its longer side: faces in a panorama would be too small.
    Each part is twice as long as the shorter side, and half of it is shown by the next one, so that every face is
    completely in one of them.
    """
    long, short = max(photo_HW3.shape[:2]), min(photo_HW3.shape[:2])
    faces = detector.detect(photo_HW3)
    if long <= PANORAMA * short:
        return faces
    for start in (*range(0, long - 2 * short, short), long - 2 * short):
        if photo_HW3.shape[1] == long:
            x, y, part_HW3 = start, 0, photo_HW3[:, start : start + 2 * short]
        else:
            x, y, part_HW3 = 0, start, photo_HW3[start : start + 2 * short]
        faces += [face.shifted(x, y) for face in detector.detect(np.ascontiguousarray(part_HW3))]
    return merge(faces)


def select(found: Sequence[FoundFace], config: FacesConfig) -> list[FoundFace]:
    """The faces that reach the limits of `config`, largest first; the first alone where `config.keep` is "largest"."""
    good = [
        one
        for one in found
        if one.face.score >= config.score
        and one.side >= config.min_side
        and one.sharpness >= config.min_sharpness
    ]
    ranked = sorted(good, key=lambda one: (-one.side, -one.face.score))
    return ranked[:1] if config.keep == "largest" else ranked


def at(found: Sequence[FoundFace], place_2: Points) -> list[FoundFace]:
    """The face to crop where a data set gives a place (x, y) in it, as a list; empty where no box contains the place.

    Of several, the one whose centre is nearest, relative to the size of its box.
    """
    inside = [
        (float(np.abs(one.face.centre - place_2).max() / one.side), one)
        for one in found
        if np.all(np.abs(one.face.centre - place_2) <= np.array(one.face.box[2:]) / 2)
    ]
    return [min(inside, key=lambda pair: pair[0])[1]] if inside else []


def explain(found: Sequence[FoundFace], config: FacesConfig) -> str:
    """Why none of the faces is cropped: by `select`, or by `at` where all limits are reached.

    The message begins with "no face" and names the parameter.
    """
    certain = [one for one in found if one.face.score >= config.score]
    if not certain:
        best = max((one.face.score for one in found), default=0.0)
        hint = f"; the most similar thing has a score of {best:.2f}" if found else ""
        return f"no face: none with a score of at least {config.score:g} (faces.score){hint}"
    large = [one for one in certain if one.side >= config.min_side]
    if not large:
        side = max(one.side for one in certain)
        return f"no face: the largest has {side:.0f} pixels, fewer than {config.min_side} (faces.min_side)"
    sharpest = max(one.sharpness for one in large)
    if sharpest >= config.min_sharpness:
        return "no face: none at the landmarks or the box that the data set gives"
    return (
        f"no face: the sharpest has a sharpness of {sharpest:.2f}, below {config.min_sharpness:g} "
        "(faces.min_sharpness)"
    )
