"""Pictures with the predictions of a task model drawn in: points, labels with bars, or an arrow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.faces.detect import Face, Pixels
from fra.inference.face_drawing import CROPPED, Canvas, canvas_of, line_of

BARS = 5
"""Largest number of labels that are drawn of a face, the most probable ones."""
Box = tuple[float, float, float, float]


def draw_predictions(
    picture_HW3: Pixels, task: str, rows: pd.DataFrame, faces: Sequence[Face | None]
) -> Pixels:
    """Draw the predictions of the faces of one picture.

    Landmarks are points; a class is the most probable one with its probability as a bar, labels the most probable ones;
    a direction is an arrow from the centre of the face. Boxes are drawn where faces were found.

    Args:
        picture_HW3: The picture, upright.
        task: Name of the task.
        rows: A row of outputs per face, see `fra.inference.task.TaskPredictor.predict`.
        faces: The faces; None where the whole picture is one.
    """
    canvas = canvas_of(picture_HW3)
    whole = (0.0, 0.0, float(canvas.image.width), float(canvas.image.height))
    for (_, row), face in zip(rows.iterrows(), faces, strict=True):
        box = whole if face is None else face.scaled(canvas.factor).box
        line = line_of(canvas, box)
        if face is not None:
            left, top, width, height = box
            canvas.draw.rectangle((left, top, left + width, top + height), outline=CROPPED, width=line)
        values = row.to_numpy(dtype=float)
        match task:
            case "alignment":
                draw_points(canvas, canvas.factor * values.reshape(-1, 2), box)
            case "gaze":
                draw_arrow(canvas, box, (values[0], values[1]), line)
            case "expression":
                draw_bars(canvas, box, row.nlargest(1))
            case _:
                draw_bars(canvas, box, row.nlargest(BARS))
    return np.asarray(canvas.image)


def draw_points(canvas: Canvas, points_L2: NDArray[np.float64], box: Box) -> None:
    """Draw landmarks as filled circles with a dark edge, which shows them on light skin, too."""
    radius = max(2, round(max(box[2:]) / 120))
    for x, y in points_L2:
        canvas.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=CROPPED, outline="black")


def draw_arrow(canvas: Canvas, box: Box, direction: tuple[float, float], line: int) -> None:
    """Draw pitch and yaw in degrees as an arrow from the centre of a face, half the box long in the image plane."""
    left, top, width, height = box
    start = np.array([left + width / 2, top + height / 2])
    pitch, yaw = np.radians(direction)
    end = start + max(width, height) / 2 * np.array([-np.cos(pitch) * np.sin(yaw), -np.sin(pitch)])
    canvas.draw.line((*start, *end), fill=CROPPED, width=2 * line)
    back = (start - end) / max(float(np.linalg.norm(start - end)), 1e-9) * 6 * line
    side = np.array([-back[1], back[0]]) / 2
    canvas.draw.polygon([tuple(end), tuple(end + back + side), tuple(end + back - side)], fill=CROPPED)


def draw_bars(canvas: Canvas, box: Box, values: pd.Series) -> None:
    """Draw names with their probabilities as bars at the lower edge of a face, from the top to the edge."""
    left, top, width, height = box
    ascent = canvas.draw.textbbox((0, 0), "Ag", font=canvas.font)[3]
    step = ascent + 2
    y = min(top + height, canvas.image.height) - step * len(values)
    for name, value in values.items():
        text = f"{name} {value:.2f}"
        length = max(canvas.draw.textlength(text, font=canvas.font) + 4, min(width, canvas.image.width / 2))
        canvas.draw.rectangle((left, y, left + length, y + step - 1), fill="black")
        canvas.draw.rectangle((left, y, left + length * value, y + step - 1), fill=(20, 110, 55))
        canvas.draw.text((left + 2, y), text, fill="white", font=canvas.font)
        y += step
