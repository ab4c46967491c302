"""The labelled synthetic faces that backbones are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data import images
from fra.data.datasets.adapters import synthetic
from fra.transfer.metrics import Array

OPEN_MOUTH = "Mouth_Slightly_Open"


@dataclass(frozen=True)
class Faces:
    """The labelled synthetic faces.

    Attributes:
        image_NHW3: Pixels, uint8.
        point_NC: Landmarks x0, y0, x1 … in pixels.
        truth: Other truths, one row per face with its key as index; NaN where unknown.
        split: `train`, `val` or `test` of each face.
    """

    image_NHW3: NDArray[np.uint8]
    point_NC: Array
    truth: pd.DataFrame
    split: Array

    def rows(self, split: str) -> Array:
        """Return the numbers of the faces of a split."""
        return np.flatnonzero(self.split == split)


def read_faces(raw: Path) -> Faces:
    """Draw the synthetic faces that are missing in `raw`, and read them with their labels.

    Raises:
        FileNotFoundError: The package with the generator's weights is not installed.
        ValueError: Other faces are drawn here than those that were annotated.
    """
    synthetic.fetch(raw, synthetic.BLOCKS)
    rows = synthetic.read_annotations()
    pixels = {}
    for tar in sorted({key.partition("/")[0] for key in rows}):
        numbers = {key.partition("/")[2] for key in rows if key.startswith(f"{tar}/")}
        for number, content in images.members(raw / f"{tar}.tar", numbers):
            pixels[f"{tar}/{number}"] = images.decode(content)
    truth = pd.DataFrame([dict(row.measures) | dict(row.labels) for row in rows.values()], index=list(rows))
    return Faces(
        np.stack([pixels[key] for key in rows]),
        np.array([row.landmarks for row in rows.values()]),
        truth.astype(float),
        np.array([row.split for row in rows.values()]),
    )
