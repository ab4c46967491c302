"""Parameters of face detection and crops (section `faces` of params.yaml)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from annotated_types import Ge, Le
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from fra.config import CHECKED

CropKind = Literal["box", "aligned"]
"""How a face is cropped, see `fra.faces.crop`."""
DetectorName = Literal["yunet", "centerface"]
"""A face detector, see `fra.faces.detectors`."""
Keep = Literal["all", "largest"]
"""Which of the selected faces of a photograph are cropped."""
MIN_SCORE = 0.3
"""Detections below this score are not even remembered: `score` cannot be lower."""
FACE_SCORE = 0.5
"""Lowest score of a face where a crop is measured, the default of `validate.min_face_score`."""


@dataclass(frozen=True, config=CHECKED)
class FacesConfig:
    """Which faces are cropped out of photographs, and how; for data sets with `faces: detect`."""

    detector: DetectorName = "yunet"
    """Model that finds the faces."""
    score: Annotated[float, Ge(MIN_SCORE), Le(1)] = 0.6
    """Confidence of a face, at least."""
    min_side: PositiveInt = 24
    """Pixels of the photograph; a face whose longer side is shorter is left out."""
    min_sharpness: NonNegativeFloat = 0.0
    """Sharpness of the face at 64×64 pixels, as validate.sharpness; a more blurred face is left out."""
    keep: Keep = "all"
    """Faces of a photograph that are cropped: all, or the largest only (one label for one face)."""
    size: PositiveInt = 224
    """Side of a crop in pixels."""
    margin: Annotated[float, Ge(0), Le(2)] = 0.25
    """Added on each side of a crop, as a share of the face's box (dataset.crop=box) or of the template (aligned)."""

    def all_faces(self) -> Self:
        """The same parameters with `keep` set to all."""
        return replace(self, keep="all")
