"""Parameters of validation (section `validate` of params.yaml)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from fra.config import CHECKED, Ascending, Share
from fra.faces.config import FACE_SCORE, MIN_SCORE
from fra.validation.image_stats import NEAR_COPY_BITS

Severity = Literal["error", "warn", "quarantine"]


@dataclass(frozen=True, config=CHECKED)
class ValidateConfig:
    """Limits of the validation rules. Grey values are 0 to 255."""

    max_quarantined: Share = 0.02
    """Share of the images that may be quarantined; more fails the validation."""
    max_without_face: Share = 0.5
    """Share of photographs that may have no face (dataset.faces=detect); max_quarantined does not count them."""
    min_images: NonNegativeInt = 2
    """Images that the data set must have."""
    min_side: PositiveInt = 32
    """Pixels; a smaller image is quarantined."""
    max_side: PositiveInt = 8192
    """Pixels; a larger image is quarantined."""
    max_bytes: PositiveInt = 50_000_000
    """Bytes; a larger image file is quarantined."""
    max_aspect: Annotated[float, Ge(1)] = 3.0
    """Longer side divided by shorter side, at most."""
    formats: tuple[str, ...] = ("jpg", "mpo", "png", "pgm", "bmp", "webp", "tif", "gif", "avif", "heif")
    """File formats that are accepted."""
    modes: tuple[str, ...] = ("L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B")
    """Pillow modes that are accepted."""
    min_contrast: NonNegativeFloat = 4.0
    """Standard deviation of an image's grey values, at least."""
    brightness: Annotated[tuple[float, float], Ascending] = (15.0, 240.0)
    """Mean grey value of an image: lowest, highest."""
    max_clipped: Share = 0.6
    """Share of an image's pixels that are black or white, at most."""
    max_flat: Share = 0.4
    """Share of an image's rows or columns that are of one colour, at most."""
    sharpness: Annotated[tuple[float, float], Ascending] = (0.15, 2.5)
    """Sharpness at 64×64 pixels: blurred below the first, noise above the second."""
    near_duplicate_bits: Annotated[int, Ge(0), Le(64)] = NEAR_COPY_BITS
    """Bits of 256 of the perceptual hash that may differ between two near-duplicates."""
    labels: dict[str, list[int]] = field(default_factory=dict)
    """Known values of each label; a label that is not listed may have any number from 0 up."""
    min_class_share: Share = 0.005
    """Share of a label's images that each of its classes has, at least."""
    max_unlabelled: Share = 0.5
    """Share of images without a value of a label, at most."""
    landmark_margin: NonNegativeFloat = 0.25
    """How far outside the image a landmark may be, in widths or heights."""
    min_eye_distance: NonNegativeFloat = 0.05
    """Distance between the eyes, in widths, at least."""
    max_roll: NonNegativeFloat = 60.0
    """Degrees by which the line between the eyes may be turned."""
    faces: bool = True
    """Whether faces are searched in the images (2 to 6 ms per image and core), as the following limits need."""
    min_face_score: Annotated[float, Ge(MIN_SCORE), Le(1)] = FACE_SCORE
    """YuNet's score of a face, at least."""
    min_face_share: Share = 0.2
    """Longer side of the largest face, as a share of the image's longer side, at least."""
    max_face_offset: Annotated[float, Ge(0), Le(0.5)] = 0.25
    """Distance between the centres of the largest face and of the image, in widths or heights, at most."""
    max_face_roll: Annotated[float, Ge(0), Le(180)] = 30.0
    """Degrees by which a face may be rotated in the image plane; measured in steps of 45."""
    beton_tolerance: NonNegativeFloat = 4.0
    """Mean difference in grey values between a beton's image and its shard's (JPEG losses), at most."""
    max_drift: Share = 0.15
    """Kolmogorov-Smirnov distance from the reference profile, at most."""
    batch_mean: NonNegativeFloat = 2.5
    """Absolute mean of a normalised view, at most."""
    batch_std: Annotated[tuple[float, float], Ascending] = (0.05, 5.0)
    """Standard deviation of a normalised view: lowest, highest."""
    min_view_difference: NonNegativeFloat = 0.001
    """Mean absolute difference between the two views of an image, at least."""
    reference: str = "pipelines/conf/validation/reference.json"
    """File with the profiles of earlier versions of the data sets."""
    expectations: str = "pipelines/conf/validation/expectations.py"
    """Python file with your own rules, in a list `RULES`."""
    severities: dict[str, Severity] = field(default_factory=dict)
    """Rules with another severity: name of the rule → error, warn or quarantine."""

    def __post_init__(self) -> None:
        if self.min_side > self.max_side:
            raise ValueError(
                f"min_side {self.min_side} is greater than max_side {self.max_side}: no image passes"
            )
