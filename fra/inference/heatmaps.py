"""A picture of the regions that a model finds in faces: one colour a mask, and how much each one has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fra.files import atomic
from fra.inference.drawing import assign, paint, palette, shares
from fra.inference.encoder import FaceEncoder
from fra.inference.image_files import Unread, batches

TILE = 160
"""Pixels a side of a face."""
GAP = 8
PER_ROW = 4
"""Faces in a row, each beside its regions."""
LINE = 26
"""Height of a line of the legend."""


def picture(
    encoder: FaceEncoder, places: Sequence[str], out: Path, *, limit: int = 24
) -> tuple[NDArray[np.float64], Unread]:
    """Draws the first `limit` faces that `places` name, each beside its regions, over a legend, into `out` (PNG).

    Returns each mask's share of all pixels (K,), and the files that hold no image that can be decoded.

    Raises:
        ValueError: `out` does not end in .png, or no image could be decoded.
        RuntimeError: the weights have no region branch.
    """
    if out.suffix != ".png":
        raise ValueError(f"{out}: write to a file that ends in .png")
    unread = Unread()
    faces: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.intp]] = []
    for batch in batches(places, TILE, min(limit, 16), unread):
        pixels = batch.pixels_N3HW[: limit - len(faces)]
        for face, heatmaps in zip(pixels, encoder.heatmaps(pixels), strict=True):
            faces.append(face.permute(1, 2, 0).numpy())
            labels.append(assign(heatmaps, TILE, TILE))
        if len(faces) == limit:
            break
    if not faces:
        name, reason = next(iter(unread.reasons.items()))
        raise ValueError(f"none of {len(unread.reasons)} files is an image; {name}: {reason}")
    masks = int(encoder.metadata["num_masks"])
    share = shares(np.stack(labels), masks)
    with atomic(out) as partial:
        sheet(faces, labels, palette(masks), share).save(partial, "PNG")
    return share, unread


def sheet(
    faces: list[NDArray[np.uint8]],
    labels: list[NDArray[np.intp]],
    colours_K3: NDArray[np.uint8],
    share_K: NDArray[np.float64],
) -> Image.Image:
    """Faces in rows, each beside its regions; below, a swatch, number and share of every mask."""
    pair = 2 * TILE + GAP
    columns = min(PER_ROW, len(faces))
    rows = -(-len(faces) // PER_ROW)
    per_line = max(1, columns * pair // 130)
    lines = -(-len(share_K) // per_line)
    width = max(columns * (pair + 2 * GAP), 130)
    whole = Image.new("RGB", (width, rows * (TILE + GAP) + lines * LINE + 2 * GAP), "white")
    for place, (face, label) in enumerate(zip(faces, labels, strict=True)):
        left, top = (place % PER_ROW) * (pair + 2 * GAP), (place // PER_ROW) * (TILE + GAP)
        whole.paste(Image.fromarray(face), (left, top))
        whole.paste(Image.fromarray(paint(face, label, colours_K3)), (left + TILE + GAP, top))
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(14)
    for mask, share in enumerate(share_K):
        left = GAP + (mask % per_line) * 130
        top = rows * (TILE + GAP) + GAP + (mask // per_line) * LINE
        draw.rectangle((left, top, left + 18, top + 18), fill=tuple(map(int, colours_K3[mask])))
        draw.text((left + 26, top), f"mask {mask}: {100 * share:.0f} %", fill="black", font=font)
    return whole
