"""Parameters of validation."""

from __future__ import annotations

from dataclasses import dataclass, field

from fra.validation.rules.rule import (
    Severity,
)


@dataclass(frozen=True)
class ValidateConfig:
    """Limits of the gate.

    Shares are 0…1, grey values 0…255, sides in pixels. `sharpness` is (blurred below, noise above), measured at 64×64.
    `near_duplicate_bits` of 256 may differ between two images that are taken for one. `labels` maps a label's name to
    its known values (others: any number from 0 up); `min_class_share` and `max_unlabelled` are shares of a label's
    images. `landmark_margin` is how far outside the image a landmark may lie, in widths or heights;
    `min_eye_distance` is in widths, `max_roll` in degrees. `beton_tolerance` is the mean grey difference of a beton's
    pixels from the shard's (JPEG). `max_drift` is a Kolmogorov–Smirnov distance. `batch_mean` and `batch_std` bound
    each view after normalisation. `reference` is a file of profiles of earlier versions, `expectations` a Python file
    with a list `RULES` of one's own, `severities` maps names of rules to other severities.
    """

    max_quarantined: float = 0.02
    min_images: int = 2
    min_side: int = 32
    max_side: int = 8192
    max_bytes: int = 50_000_000
    max_aspect: float = 3.0
    formats: tuple[str, ...] = ("jpg", "mpo", "png", "pgm", "bmp", "webp", "tif", "gif", "avif", "heif")
    modes: tuple[str, ...] = ("L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B")
    min_contrast: float = 4.0
    brightness: tuple[float, float] = (15.0, 240.0)
    max_clipped: float = 0.6
    max_flat: float = 0.4
    sharpness: tuple[float, float] = (0.15, 2.5)
    near_duplicate_bits: int = 12
    labels: dict[str, list[int]] = field(default_factory=dict)
    min_class_share: float = 0.005
    max_unlabelled: float = 0.5
    landmark_margin: float = 0.25
    min_eye_distance: float = 0.05
    max_roll: float = 60.0
    beton_tolerance: float = 4.0
    max_drift: float = 0.15
    batch_mean: float = 2.5
    batch_std: tuple[float, float] = (0.05, 5.0)
    min_view_difference: float = 0.001
    reference: str = "pipelines/conf/validation/reference.json"
    expectations: str = "pipelines/conf/validation/expectations.py"
    severities: dict[str, Severity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (
            "max_quarantined",
            "max_clipped",
            "max_flat",
            "min_class_share",
            "max_unlabelled",
            "max_drift",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"validate.{name} is {getattr(self, name)}: a share, 0 to 1")
        if not 1 <= self.min_side <= self.max_side:
            raise ValueError(f"validate.min_side {self.min_side} and max_side {self.max_side} leave no image")
        if not 0 <= self.near_duplicate_bits <= 64:
            raise ValueError(f"validate.near_duplicate_bits is {self.near_duplicate_bits}: 0 to 64 of 256")
        for name in ("brightness", "sharpness", "batch_std"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"validate.{name} is [{low}, {high}]: the smaller first")
