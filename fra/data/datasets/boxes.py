"""Square boxes around landmarks, for sets whose images show more than one face."""

from __future__ import annotations

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are excluded."""


def square_around(points: tuple[float, ...], margin: float) -> Box:
    """The square box around points, not beyond the top and left border of the image.

    Args:
        points: x0, y0, x1, y1 … in pixels.
        margin: What is added on each side, as a share of the side.
    """
    xs, ys = points[0::2], points[1::2]
    side = max(max(xs) - min(xs), max(ys) - min(ys)) * (1 + 2 * margin)
    left, top = (min(xs) + max(xs) - side) / 2, (min(ys) + max(ys) - side) / 2
    return max(0, round(left)), max(0, round(top)), round(left + side), round(top + side)


def crop_around(points: tuple[float, ...], margin: float) -> tuple[Box, tuple[float, ...]]:
    """`square_around` the points, and the points in pixels of that box."""
    box = square_around(points, margin)
    return box, tuple(value - box[place % 2] for place, value in enumerate(points))
