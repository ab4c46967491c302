"""Crops of the faces in a photograph, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fra.faces.config import MIN_SCORE, FacesConfig
from fra.faces.crop import CropKind, Transform, crop, crop_transform
from fra.faces.detect import Detector, Face, Pixels
from fra.faces.detectors import detector
from fra.faces.select import FoundFace, find, select

DEFAULTS = FacesConfig()


@dataclass(frozen=True)
class FaceCrop:
    """A face that was cropped out of a photograph.

    Attributes:
        pixels_HW3: The crop, RGB.
        face: Box, points and score, in pixels of the upright photograph.
        sharpness: See `fra.faces.sharpness`.
        transform_23: From pixels (x, y) of the photograph to pixels of the crop.
    """

    pixels_HW3: Pixels
    face: Face
    sharpness: float
    transform_23: Transform


def crop_faces(
    photo_HW3: Pixels,
    kind: CropKind = "box",
    config: FacesConfig = DEFAULTS,
    model: Detector | None = None,
) -> list[FaceCrop]:
    """The faces in a photograph as crops of `config.size` pixels, the largest face first.

    Args:
        photo_HW3: An upright RGB photograph; `fra.data.images.decode` returns one from the bytes of a file.
        kind: "box", the square around the face, or "aligned", by eyes, nose and mouth.
        config: Which faces are cropped, the size of a crop, and its margin.
        model: A detector to use again for many photographs (`fra.faces.detectors.detector`); loaded if not given.

    Returns:
        The crops; an empty list where no face was found.
    """
    found = find(photo_HW3, model or detector(config.detector, MIN_SCORE))
    return cut(photo_HW3, select(found, config), kind, config)


def cut(
    photo_HW3: Pixels, chosen: Sequence[FoundFace], kind: CropKind, config: FacesConfig
) -> list[FaceCrop]:
    """Faces that were found in a photograph as crops of `config.size` pixels."""
    crops = []
    for one in chosen:
        transform_23 = crop_transform(one.face, kind, config.size, config.margin)
        pixels_HW3 = crop(photo_HW3, transform_23, config.size)
        crops.append(FaceCrop(pixels_HW3, one.face, one.sharpness, transform_23))
    return crops
