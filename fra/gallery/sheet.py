"""A sheet of search results: each query, and the pictures found for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fra.data.images import ImageError, decode, read_file, resize
from fra.faces.detect import Pixels
from fra.files import atomic, check_output
from fra.gallery.files import Match
from fra.gallery.search import Result
from fra.inference.image_files import members

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
            f"{len(results)} queries with {columns - 1} results are more than {MAX_PICTURES:,} pictures: lower --count"
        )
    cell = SIDE + MARGIN, SIDE + TEXT + MARGIN
    sheet = Image.new("RGB", (columns * cell[0] + 3 * MARGIN, len(results) * cell[1] + MARGIN), PAPER)
    drawing = ImageDraw.Draw(sheet)
    write = partial(drawing.text, font=ImageFont.load_default(11))
    for row, result in enumerate(results):
        top = MARGIN + row * cell[1]
        query = result.query
        query_HW3 = picture(query) if isinstance(query, Match) else resize(query, SIDE)
        sheet.paste(Image.fromarray(query_HW3), (MARGIN, top))
        write((MARGIN, top + SIDE + 2), "query", fill=INK)
        write((MARGIN, top + SIDE + 15), short("/".join(result.image.parts[-2:])), fill=MUTED)
        for column, match in enumerate(result.matches, start=1):
            left = 3 * MARGIN + column * cell[0]
            sheet.paste(Image.fromarray(picture(match)), (left, top))
            write((left, top + SIDE + 2), f"{match.cosine:.3f}", fill=INK)
            write((left, top + SIDE + 15), short("/".join(Path(match.name).parts[-2:])), fill=MUTED)
    with atomic(out) as partial_file:
        sheet.save(partial_file, "PNG" if out.suffix == ".png" else "JPEG", quality=95)


def short(name: str, length: int = 18) -> str:
    """The end of a name that is too long for a picture."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def picture(match: Match) -> Pixels:
    """The picture of a match, `SIDE` × `SIDE`; grey where its file is missing or cannot be decoded."""
    try:
        whole_HW3 = decode(content_of(match.name))
    except (ImageError, OSError, ValueError):
        return np.full((SIDE, SIDE, 3), EMPTY, np.uint8)
    if match.box is not None:
        left, top, width, height = (round(value) for value in match.box)
        part_HW3 = whole_HW3[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
        whole_HW3 = part_HW3 if part_HW3.size else whole_HW3
    return resize(whole_HW3, SIDE)


def content_of(name: str) -> bytes:
    """The bytes of an image by its name in a gallery: a file, or `<shard>.tar/<member>`."""
    shard, mark, member = name.partition(".tar/")
    if not mark or Path(name).is_file():
        return read_file(name)
    wanted = f"{shard}.tar/{member}"
    for file in members(Path(f"{shard}.tar")):
        if file.name == wanted:
            return file.read()
    raise FileNotFoundError(name)
