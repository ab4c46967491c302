"""Photographs with known faces: those embedded in a package, and generated faces in synthetic backgrounds."""

from __future__ import annotations

from collections.abc import Iterator

from fra.bench.detection import generated_faces, orl_subjects
from fra.bench.scenes import scene
from fra.faces.detect import Pixels

__all__ = ["generated_faces", "orl_photographs", "scene"]


def orl_photographs() -> Iterator[Pixels]:
    """The 400 embedded photographs as RGB (112, 92, 3)."""
    for subject in orl_subjects():
        yield subject.face_HW3
