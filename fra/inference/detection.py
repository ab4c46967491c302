"""Faces in photographs: found, selected and cropped by several threads at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fra.faces.config import MIN_SCORE, FacesConfig
from fra.faces.crop import CropKind
from fra.faces.detect import Detector, Pixels
from fra.faces.detectors import detector
from fra.faces.extract import FaceCrop, cut
from fra.faces.select import FoundFace, explain, find, select


@dataclass(frozen=True)
class Detection:
    """How faces are found in photographs and cropped."""

    crop: CropKind = "box"
    config: FacesConfig = field(default_factory=FacesConfig)

    def description(self) -> dict[str, Any]:
        """What is stored with results: the detector, and how faces are cropped."""
        return {"crop": self.crop, "margin": self.config.margin, "detector": self.config.detector}


class FacesFound(NamedTuple):
    """The faces in a photograph.

    Attributes:
        crops: The selected faces, the largest first.
        left_out: Faces that were found but not selected.
        reason: Why there are no crops; None where there are some.
    """

    crops: list[FaceCrop]
    left_out: list[FoundFace]
    reason: str | None


class FaceFinder:
    """Finds and crops faces. Several threads may use it at a time: each gets a detector of its own."""

    def __init__(self, detection: Detection) -> None:
        """Loads the detector of the calling thread.

        Raises:
            FileNotFoundError: The detector's weights are not installed.
            ModuleNotFoundError: A library that the detector needs is not installed.
            ValueError: The weights are not the known ones.
        """
        self.detection = detection
        self._local = threading.local()
        self._detector()

    def __call__(self, photo_HW3: Pixels) -> FacesFound:
        """The faces in an upright RGB photograph."""
        config = self.detection.config
        found = find(photo_HW3, self._detector())
        chosen = select(found, config)
        left_out = [one for one in found if not any(one is other for other in chosen)]
        crops = cut(photo_HW3, chosen, self.detection.crop, config)
        return FacesFound(crops, left_out, None if crops else explain(found, config))

    def _detector(self) -> Detector:
        if not hasattr(self._local, "detector"):
            self._local.detector = detector(self.detection.config.detector, MIN_SCORE)
        model: Detector = self._local.detector
        return model
