"""A sheet of search results: each query, and the pictures found for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fra.data.images import ImageError, resize
from fra.faces.detect import Pixels
from fra.files import atomic, check_output
from fra.gallery.files import Match
from fra.gallery.pixels import Box, map_pixels
from fra.gallery.search import Result

SIDE, MARGIN, TEXT = 112, 8, 30
"""Pixels: the side of a picture, the space between pictures, and the height of the text below one."""
MAX_PICTURES = 2000
"""Largest number of pictures of a sheet."""
INK, MUTED, PAPER, EMPTY = (20, 20, 20), (110, 110, 110), (255, 255, 255), 225


def draw_sheet(results: Sequence[Result], out: Path) -> None:
    """Draws one row per face that was searched for, with the cosine and the name below each picture.

    A picture that is no longer readable is grey.

    Raises:
        ValueError: `out` is no .png or .jpg, or there are too many pictures.
    """
    check_output(out, (".png", ".jpg"))
    columns = 1 + max(len(result.matches) for result in results)
    if columns * len(results) > MAX_PICTURES:
        raise ValueError(
            f"{len(results)} queries with {columns - 1} results are more than {MAX_PICTURES:,} pictures: ask for fewer"
        )
    cell = SIDE + MARGIN, SIDE + TEXT + MARGIN
    sheet = Image.new("RGB", (columns * cell[0] + 3 * MARGIN, len(results) * cell[1] + MARGIN), PAPER)
    drawing = ImageDraw.Draw(sheet)
    write = partial(drawing.text, font=ImageFont.load_default(11))
    shown = [match for result in results for match in result.matches]
    pictures = pictures_of(shown + [result.query for result in results if isinstance(result.query, Match)])
    for row, result in enumerate(results):
        top = MARGIN + row * cell[1]
        query = result.query
        query_HW3 = pictures[place_of(query)] if isinstance(query, Match) else resize(query, SIDE)
        sheet.paste(Image.fromarray(query_HW3), (MARGIN, top))
        write((MARGIN, top + SIDE + 2), "query", fill=INK)
        write((MARGIN, top + SIDE + 15), short("/".join(result.image.parts[-2:])), fill=MUTED)
        for column, match in enumerate(result.matches, start=1):
            left = 3 * MARGIN + column * cell[0]
            sheet.paste(Image.fromarray(pictures[place_of(match)]), (left, top))
            write((left, top + SIDE + 2), f"{match.cosine:.3f}", fill=INK)
            write((left, top + SIDE + 15), short("/".join(Path(match.name).parts[-2:])), fill=MUTED)
    with atomic(out) as partial_file:
        sheet.save(partial_file, "PNG" if out.suffix == ".png" else "JPEG", quality=95)


def short(name: str, length: int = 18) -> str:
    """The end of a name that is too long for a picture."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def place_of(match: Match) -> tuple[str, Box | None]:
    """The name of the image, and the box of the face in it."""
    return match.name, None if match.box is None else cast(Box, tuple(match.box))


def pictures_of(matches: Sequence[Match]) -> dict[tuple[str, Box | None], Pixels]:
    """The pictures of matches, `SIDE` × `SIDE`, by `place_of`; grey where an image is missing or cannot be decoded."""
    places = sorted({place_of(match) for match in matches}, key=lambda place: place[0])
    found = map_pixels(partial(resize, size=SIDE), places)
    grey = np.full((SIDE, SIDE, 3), EMPTY, np.uint8)
    return {
        place: grey if isinstance(picture_HW3, ImageError) else picture_HW3
        for place, picture_HW3 in zip(places, found, strict=True)
    }
