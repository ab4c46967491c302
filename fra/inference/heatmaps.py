"""A sheet of faces with their regions: one colour per mask, and the share of each mask."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fra.data.images import resize
from fra.dist import choose_device
from fra.files import atomic, check_output
from fra.inference.detection import Detection
from fra.inference.drawing import assign, paint, palette, shares
from fra.inference.encoder import load
from fra.inference.image_files import Skipped, read_images, resolve

TILE = 160
"""Side of a face in pixels."""
GAP = 8
AHEAD = 8
"""Images that are decoded before their turn, in their own size."""
PER_ROW = 4
"""Faces in a row, each next to its regions."""
LINE = 26
"""Height of a line of the legend in pixels."""


def draw(
    weights: Path,
    patterns: Sequence[str],
    out: Path,
    *,
    limit: int = 24,
    batch_size: int = 64,
    device: str = "auto",
    detection: Detection | None = None,
) -> tuple[NDArray[np.float64], Skipped]:
    """Draw faces, each next to its regions, above a legend, into a PNG file.

    Args:
        weights: Weights file of a model, or the name of released weights.
        patterns: Files, folders, glob patterns or tar shards.
        out: The PNG file.
        limit: Largest number of faces; the first ones are drawn.
        batch_size: Images per batch.
        device: "cpu", "cuda" or "auto".
        detection: How faces are found and cropped; None: each image is one face.

    Returns:
        Each mask's share of all pixels (K,), and the files that cannot be decoded or in which no face was found.

    Raises:
        ValueError: `out` does not end in .png, no image could be decoded, or no face was found.
        FileNotFoundError: A path or pattern matches nothing, or the weights are missing.
        OSError: `out` cannot be written.
        RuntimeError: The weights have no region branch.
    """
    check_output(out, [".png"])
    paths = resolve(patterns)
    encoder = load(weights).to(choose_device(device))
    skipped = Skipped()
    tiles: list[NDArray[np.uint8]] = []
    pixels: list[NDArray[np.uint8]] = []
    with closing(read_images(paths, None, AHEAD, skipped, detection)) as images:
        for _, image_HW3 in islice(images, limit):
            tiles.append(resize(image_HW3, TILE))
            pixels.append(resize(image_HW3, encoder.image_size))
    if not tiles:
        raise skipped.nothing_left()
    heatmaps_NKHW = encoder.heatmaps(pixels, batch_size)
    labels = [assign(heatmaps_KHW, TILE, TILE) for heatmaps_KHW in heatmaps_NKHW]
    masks = int(encoder.metadata["num_masks"])
    share = shares(np.stack(labels), masks)
    with atomic(out) as partial:
        sheet(tiles, labels, palette(masks), share).save(partial, "PNG")
    return share, skipped


def sheet(
    faces: list[NDArray[np.uint8]],
    labels: list[NDArray[np.intp]],
    colours_K3: NDArray[np.uint8],
    share_K: NDArray[np.float64],
) -> Image.Image:
    """Draw faces in rows, each next to its regions; below, colour, number and share of every mask."""
    pair = 2 * TILE + GAP
    columns = min(PER_ROW, len(faces))
    rows = -(-len(faces) // PER_ROW)
    per_line = max(1, columns * pair // 130)
    lines = -(-len(share_K) // per_line)
    width = max(columns * (pair + 2 * GAP), 130)
    whole = Image.new("RGB", (width, rows * (TILE + GAP) + lines * LINE + 2 * GAP), "white")
    for number, (face, label) in enumerate(zip(faces, labels, strict=True)):
        left, top = (number % PER_ROW) * (pair + 2 * GAP), (number // PER_ROW) * (TILE + GAP)
        whole.paste(Image.fromarray(face), (left, top))
        whole.paste(Image.fromarray(paint(face, label, colours_K3)), (left + TILE + GAP, top))
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(14)
    for mask, share in enumerate(share_K):
        left = GAP + (mask % per_line) * 130
        top = rows * (TILE + GAP) + GAP + (mask // per_line) * LINE
        draw.rectangle((left, top, left + 18, top + 18), fill=tuple(map(int, colours_K3[mask])))
        draw.text((left + 26, top), f"mask {mask}: {100 * share:.0f} %", fill="black", font=font)
    return whole
