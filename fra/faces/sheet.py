"""Squares of several sizes packed into images that are searched together: one search costs less than many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Sheet(NamedTuple):
    """An image of squares.

    Attributes:
        width: In pixels.
        height: In pixels.
        places: The number of each square, and its left and top.
        sides: The side of each square in pixels.
    """

    width: int
    height: int
    places: list[tuple[int, int, int]]
    sides: list[int]

    def at(self, x: float, y: float) -> tuple[int, int, int] | None:
        """The place that contains a point; None where it is between the squares."""
        for (number, left, top), side in zip(self.places, self.sides, strict=True):
            if left <= x < left + side and top <= y < top + side:
                return number, left, top
        return None


def sheets(sides: Sequence[int], longest: int) -> list[Sheet]:
    """Sheets of at most `longest` by `longest` pixels for squares of these sides: in rows, the largest first."""
    packed: list[Sheet] = []
    places: list[tuple[int, int, int]] = []
    x = y = row = width = 0
    for number in sorted(range(len(sides)), key=lambda number: -sides[number]):
        side = sides[number]
        if x + side > longest:
            x, y, row = 0, y + row, 0
        if y + side > longest:
            packed.append(_sheet(width, y, places, sides))
            places, y, width = [], 0, 0
        places.append((number, x, y))
        x, row = x + side, max(row, side)
        width = max(width, x)
    return [*packed, _sheet(width, y + row, places, sides)] if places else []


def _sheet(width: int, height: int, places: list[tuple[int, int, int]], sides: Sequence[int]) -> Sheet:
    return Sheet(width, height, places, [sides[number] for number, _, _ in places])
