"""Images of a task: whole, or aligned by facial landmarks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data import images
from fra.faces.crop import similarity

EYES_AND_MOUTH = {
    68: (range(36, 42), range(42, 48), range(48, 68)),
    98: (range(60, 68), range(68, 76), range(76, 96)),
    5: ((0,), (1,), (3, 4)),
}
"""Indices of the landmarks of the left eye (of the image), the right eye and the mouth, by number of landmarks."""

TEMPLATE = np.array([[0.29, 0.38], [0.71, 0.38], [0.5, 0.82]])
"""Position of the centres of eyes and mouth in an aligned image, as fractions of width and height."""


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
        transform_23 = similarity(centres(np.asarray(landmarks, float).reshape(-1, 2)), TEMPLATE * size)
        transform_23[:, :2] /= scale  # from pixels of the stored image to pixels of the resized one
        found[row] = cv2.warpAffine(
            image, transform_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return found


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
