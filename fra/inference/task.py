"""Predictions of a task model on pictures: one row per picture, coordinates in the picture's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fra.data.images import resize
from fra.faces.crop import Transform, apply, invert
from fra.faces.detect import Pixels
from fra.inference.encoder import AnyImage, pixels_of, split
from fra.transfer import align, task_model
from fra.transfer.task_model import TaskModel

Landmarks = NDArray[np.floating] | None


class TaskPredictor:
    """Predicts with a task model; built by `load_task`.

    Images are those that `fra.load(...).embed` takes: a list of PIL images, paths or uint8 arrays (H, W, 3) of any
    sizes, or one uint8 tensor (N, 3, H, W). Each shows one face, as in the data set that the model was fitted on.
    """

    def __init__(self, model: TaskModel) -> None:
        self.model = model

    @property
    def metadata(self) -> dict[str, Any]:
        """Task, columns, crop, metrics on test, provenance: see `fra.transfer.task_model.TaskModel`."""
        return self.model.metadata

    def to(self, device: torch.device | str) -> Self:
        """Move the network to a device."""
        self.model.to(device)
        return self

    def predict(
        self,
        images: Sequence[AnyImage] | Tensor,
        landmarks: Sequence[Landmarks] | None = None,
        batch_size: int = 64,
    ) -> pd.DataFrame:
        """Predict on images.

        Args:
            images: See the class.
            landmarks: Of each image, (L, 2) in its pixels, or None. Where the model was fitted on aligned faces
                (`metadata["crop"]` is "eyes_and_mouth"), an image with 5, 68 or 98 landmarks is aligned in the same
                way; one without is used as it is, as an aligned crop. Other models make no use of them.
            batch_size: Images per batch.

        Returns:
            One row per image, with the columns `metadata["columns"]`: probabilities of the classes or labels;
            coordinates of landmarks (x0, y0, x1 and so on) in pixels of the upright image, at its own size; pitch and
            yaw in degrees.

        Raises:
            ValueError: An image has another type or shape, or cannot be decoded; there are not as many landmarks as
                images; or their number is not supported.
            OSError: A file cannot be read.
        """
        if landmarks is not None and len(landmarks) != len(images):
            raise ValueError(
                f"{len(landmarks)} sets of landmarks for {len(images)} images: give one (or None) to each"
            )
        tables = []
        for number, batch in enumerate(split(images, batch_size)):
            pixels = pixels_of(batch)
            points = (
                [None] * len(pixels) if landmarks is None else landmarks[number * batch_size :][: len(pixels)]
            )
            prepared = [self.prepare(*pair) for pair in zip(pixels, points, strict=True)]
            sized, transforms = zip(*prepared, strict=True)
            tables.append(self.table(np.stack(sized), transforms))
        return pd.concat(tables, ignore_index=True) if tables else self.table(None, [])

    def prepare(self, image_HW3: Pixels, landmarks: Landmarks = None) -> tuple[Pixels, Transform]:
        """Return an image at the model's size, and the transform (2, 3) from the image's pixels to it."""
        size = self.model.image_size
        if landmarks is not None and self.metadata["crop"] == "eyes_and_mouth":
            points_L2 = np.asarray(landmarks, np.float64).reshape(-1, 2)
            return align.aligned(image_HW3, points_L2, size), align.transform(points_L2, size)
        whole = image_HW3 if image_HW3.shape[:2] == (size, size) else resize(image_HW3, size)
        return whole, whole_image(image_HW3, size)

    def table(self, pixels_NHW3: NDArray[np.uint8] | None, transforms_N: Sequence[Transform]) -> pd.DataFrame:
        """Predict on images of the model's size.

        Args:
            pixels_NHW3: The images; None where there are none.
            transforms_N: Of each image, from pixels of the picture that it was cut from.

        Returns:
            See `predict`.
        """
        columns = self.metadata["columns"]
        if pixels_NHW3 is None:
            return pd.DataFrame(np.empty((0, len(columns))), columns=columns)
        score_NO = self.model.scores(pixels_NHW3)
        match self.metadata["task"]:
            case "alignment":
                score_NO = in_picture(score_NO, transforms_N, self.model.image_size)
            case "gaze":
                score_NO = pitch_and_yaw(score_NO)
        return pd.DataFrame(score_NO.astype(np.float64), columns=columns)


def whole_image(image_HW3: Pixels, size: int) -> Transform:
    """Return the transform (2, 3) from pixels of an image to those of the same image at `size` × `size`."""
    height, width = image_HW3.shape[:2]
    return np.array([[size / width, 0, 0], [0, size / height, 0]])


def in_picture(
    fraction_NO: NDArray[Any], transforms_N: Sequence[Transform], size: int
) -> NDArray[np.float64]:
    """Return coordinates (x0, y0, x1 …) in pixels of the picture, from fractions of the side of each crop: (N, O)."""
    points_NL2 = size * fraction_NO.astype(np.float64).reshape(len(fraction_NO), -1, 2)
    pairs = zip(transforms_N, points_NL2, strict=True)
    return np.stack([apply(invert(transform_23), points_L2).ravel() for transform_23, points_L2 in pairs])


def pitch_and_yaw(direction_N3: NDArray[Any]) -> NDArray[np.float64]:
    """Return pitch and yaw in degrees (N, 2) of directions, the inverse of `fra.transfer.tasks.truths.directions`."""
    x_N, y_N, z_N = direction_N3.astype(np.float64).T
    length_N = np.linalg.norm(direction_N3, axis=1).clip(1e-12)
    pitch_N, yaw_N = np.arcsin(np.clip(-y_N / length_N, -1, 1)), np.arctan2(-x_N, -z_N)
    degrees_N2: NDArray[np.float64] = np.degrees(np.stack([pitch_N, yaw_N], axis=1))
    return degrees_N2


def load_task(path: str | Path) -> TaskPredictor:
    """Load a task model that `fra transfer fit` wrote, on the CPU.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged, or holds no task model.
    """
    return TaskPredictor(task_model.load(path))
