"""Images of a task: whole, or aligned by facial landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data import images
from fra.faces.crop import Transform, similarity

EYES_AND_MOUTH = {
    68: (range(36, 42), range(42, 48), range(48, 68)),
    98: (range(60, 68), range(68, 76), range(76, 96)),
    5: ((0,), (1,), (3, 4)),
}
"""Indices of the landmarks of the left eye (of the image), the right eye and the mouth, by number of landmarks."""

TEMPLATE = np.array([[0.29, 0.38], [0.71, 0.38], [0.5, 0.82]])
"""Position of the centres of eyes and mouth in an aligned image, as fractions of width and height."""


@dataclass(frozen=True)
class Framing:
    """Where a face is in the images of a data set, so that photographs can be cropped in the same way.

    Attributes:
        places: Mean centres of the eyes and the mouth (3, 2), as fractions of width and height.
        aspect: Width of the images divided by their height.
        upright: Whether a face is turned upright; not where directions are predicted, which would turn with it.
    """

    places: Sequence[Sequence[float]]
    aspect: float
    upright: bool

    def transform(self, point_L2: NDArray[np.float64], size: int) -> Transform:
        """Return the transform (2, 3) from pixels of a photograph with these landmarks to `size` × `size` pixels.

        Raises:
            ValueError: The number of landmarks is not supported.
        """
        start_32, end_32 = centres(point_L2), np.asarray(self.places) * [self.aspect * size, size]
        transform_23 = similarity(start_32, end_32)
        if not self.upright:
            scale = float(np.sqrt(np.linalg.det(transform_23[:, :2])))
            shift_2 = end_32.mean(axis=0) - scale * start_32.mean(axis=0)
            transform_23 = np.array([[scale, 0, shift_2[0]], [0, scale, shift_2[1]]])
        transform_23[0] /= self.aspect  # images are resized without keeping their aspect ratio
        return transform_23


def framing(frame: pd.DataFrame, aligned: bool, upright: bool) -> Framing | None:
    """Return the framing of the images of the manifest's rows; None where their landmarks do not show it."""
    if aligned:
        return Framing(TEMPLATE.tolist(), 1.0, True)
    known = frame[frame["landmarks"].notna()]
    if known.empty or any(len(points) // 2 not in EYES_AND_MOUTH for points in known["landmarks"]):
        return None
    size_N2 = known[["width", "height"]].to_numpy(dtype=float)
    places = [
        centres(np.asarray(points, float).reshape(-1, 2)) / size_2
        for points, size_2 in zip(known["landmarks"], size_N2, strict=True)
    ]
    return Framing(np.mean(places, axis=0).tolist(), float(np.mean(size_N2[:, 0] / size_N2[:, 1])), upright)


def read(frame: pd.DataFrame, shards: Path, size: int, aligned: bool) -> NDArray[np.uint8]:
    """Read the images of the manifest's rows: (N, size, size, 3).

    With `aligned`, each image goes through the similarity transform (rotation, scale, translation) that brings eyes
    and mouth closest to `TEMPLATE`, like the published crops of RAF-DB and CelebA. An image without landmarks is
    resized as a whole.
    """
    if not aligned or frame["landmarks"].isna().all():
        return images.read(frame, shards, size)
    whole = images.read(frame, shards, 2 * size)  # twice the size, as the face is a part of the image
    scale_N2 = 2 * size / frame[["width", "height"]].to_numpy(dtype=float)
    found = np.empty((len(frame), size, size, 3), dtype=np.uint8)
    for row, (image, scale, landmarks) in enumerate(zip(whole, scale_N2, frame["landmarks"], strict=True)):
        if landmarks is None:
            found[row] = images.resize(image, size)
            continue
        found[row] = warp(image, scale, transform(np.asarray(landmarks, float).reshape(-1, 2), size), size)
    return found


def warp(
    whole: NDArray[np.uint8], scale_2: NDArray[np.float64], transform_23: Transform, size: int
) -> NDArray[np.uint8]:
    """Return the aligned image (size, size, 3) of a resized image, whose sides are `scale_2` times the original's."""
    resized_23 = transform_23.copy()
    resized_23[:, :2] /= scale_2  # from pixels of the original image to pixels of the resized one
    return np.asarray(
        cv2.warpAffine(
            whole, resized_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )


def aligned(image_HW3: NDArray[np.uint8], point_L2: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Return a single image aligned by its landmarks, exactly as `read` aligns it: (size, size, 3)."""
    height, width = image_HW3.shape[:2]
    scale_2 = 2 * size / np.array([width, height], dtype=float)
    return warp(images.resize(image_HW3, 2 * size), scale_2, transform(point_L2, size), size)


def transform(point_L2: NDArray[np.float64], size: int) -> Transform:
    """Return the transform (2, 3) from pixels of an image with these landmarks to pixels of the aligned image.

    Raises:
        ValueError: The number of landmarks is not supported.
    """
    return similarity(centres(point_L2), TEMPLATE * size)


def centres(point_L2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centres of the two eyes and the mouth: (3, 2).

    Raises:
        ValueError: The number of landmarks is not supported.
    """
    if len(point_L2) not in EYES_AND_MOUTH:
        raise ValueError(
            f"faces cannot be aligned by {len(point_L2)} landmarks (supported: {sorted(EYES_AND_MOUTH)}); "
            "set transfer.align to false"
        )
    return np.stack([point_L2[list(part)].mean(axis=0) for part in EYES_AND_MOUTH[len(point_L2)]])
