"""Photographs with their faces drawn in: box, points and score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fra.faces.detect import Face, Pixels

CROPPED, LEFT_OUT = (60, 235, 110), (255, 150, 40)
"""Colours of faces that are cropped, and of those that were found but not selected."""
SMALLEST = 480
"""Longer side in pixels up to which a smaller photograph is enlarged, so that the scores can be read."""
LINES = 300
"""The side of a square with the photograph's area is this many lines wide."""
TEXT = 6
"""Height of the scores, in widths of a line."""


def draw_faces(photo_HW3: Pixels, cropped: Sequence[Face], left_out: Sequence[Face] = ()) -> Pixels:
    """The photograph with boxes, points and scores: green faces are cropped, orange ones are left out.

    Lines and text have a width that can be seen in the whole photograph.
    """
    canvas = canvas_of(photo_HW3)
    for faces, colour in ((left_out, LEFT_OUT), (cropped, CROPPED)):
        for face in faces:
            _draw_face(canvas, face.scaled(canvas.factor), colour)
    return np.asarray(canvas.image)


class Canvas(NamedTuple):
    """A photograph to draw on.

    Attributes:
        image: The photograph; one smaller than `SMALLEST` is enlarged by a whole number.
        draw: Draws on `image`.
        factor: That number.
        line: Width of lines in pixels.
        font: Of text.
    """

    image: Image.Image
    draw: ImageDraw.ImageDraw
    factor: int
    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont


def canvas_of(photo_HW3: Pixels) -> Canvas:
    """A photograph to draw on."""
    height, width = photo_HW3.shape[:2]
    factor = max(1, SMALLEST // max(height, width))
    image = Image.fromarray(photo_HW3).resize((factor * width, factor * height), Image.Resampling.NEAREST)
    line = max(1, round((image.width * image.height) ** 0.5 / LINES))
    font = ImageFont.load_default(max(10, TEXT * line))
    return Canvas(image, ImageDraw.Draw(image), factor, line, font)


def line_of(canvas: Canvas, box: tuple[float, float, float, float]) -> int:
    """Width of the lines of a face with this box: those of a small face are thinner."""
    return max(1, min(canvas.line, round(max(box[2:]) / 15)))


def _draw_face(canvas: Canvas, face: Face, colour: tuple[int, int, int]) -> None:
    left, top, width, height = face.box
    draw, font, line = canvas.draw, canvas.font, line_of(canvas, face.box)
    draw.rectangle(
        (left - line, top - line, left + width + line, top + height + line), outline=colour, width=line
    )
    for x, y in face.points_52:
        draw.ellipse((x - line, y - line, x + line, y + line), fill=colour)
    text = f"{face.score:.2f}"
    box = draw.textbbox((left - line, top - line), text, font=font, anchor="lb")
    if box[1] < 0:  # no room above the face
        box = draw.textbbox((left - line, top + height + line), text, font=font, anchor="lt")
    draw.rectangle(box, fill="black")
    draw.text(box[:2], text, fill=colour, font=font, anchor="lt")
