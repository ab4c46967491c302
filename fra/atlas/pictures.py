"""Thumbnail and measurements of each face of a file of embeddings, from the images that the file names."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from tqdm import tqdm

from fra.data.images import ImageError, resize
from fra.faces.config import FACE_SCORE
from fra.faces.detect import Pixels
from fra.gallery.pixels import Box, map_pixels
from fra.inference.encoder import FaceEncoder
from fra.validation.face_stats import FaceFinder
from fra.validation.image_stats import measure

SIDE = 64
"""Longer side of a thumbnail in pixels."""
QUALITY = 85
"""JPEG quality of thumbnails."""
GRID = 32
"""Side of the grid on which the pixels of each mask are counted."""


class Row(NamedTuple):
    """A face: the name of its image, and its box (left, top, width, height) where it is a part of the image."""

    name: str
    box: Box | None = None


@dataclass(frozen=True)
class Pictures:
    """Thumbnails and measurements of N faces.

    Attributes:
        thumbnails: JPEG files; None where the image is missing or cannot be decoded.
        measurements: Columns by name, (N,) each, NaN where they are unknown: `brightness` (0 to 255), `sharpness`,
            `face_score` (0 to 1), `yaw` (degrees, to the right of the image), and `mask_0` … (share of the pixels).
        unreadable: Why there is no thumbnail, by name of the image.
    """

    thumbnails: list[bytes | None]
    measurements: dict[str, NDArray[np.float32]]
    unreadable: dict[str, str]


class Seen(NamedTuple):
    """What was seen of one face; `pixels_HW3` are for the network, where there is one."""

    thumbnail: bytes
    measured: tuple[float, float, float, float]
    pixels_HW3: Pixels | None


MEASURED = ("brightness", "sharpness", "face_score", "yaw")


def look(rows: Sequence[Row], encoder: FaceEncoder | None, batch_size: int = 64) -> Pictures:
    """Read the image of each face.

    Args:
        rows: The faces; those of one image follow each other.
        encoder: Finds the regions; None, or one without regions: no `mask_` columns.
        batch_size: Faces per batch of the encoder.
    """
    masks = 0 if encoder is None or encoder.neck is None else int(encoder.metadata["num_masks"])
    size = encoder.image_size if encoder is not None and masks else None
    thumbnails: list[bytes | None] = []
    numbers_NM = np.full((len(rows), len(MEASURED) + masks), np.nan, np.float32)
    unreadable: dict[str, str] = {}
    waiting: list[tuple[int, Pixels]] = []

    def count_masks() -> None:
        if encoder is not None and waiting:
            places, pixels = zip(*waiting, strict=True)
            numbers_NM[list(places), len(MEASURED) :] = mask_shares(encoder, pixels, masks, batch_size)
            waiting.clear()

    see = partial(look_at_face, FaceFinder(FACE_SCORE), size)
    with (
        closing(map_pixels(see, rows)) as found,
        tqdm(total=len(rows), desc="thumbnails", unit="face", mininterval=1) as bar,
    ):
        for number, ((name, _), face) in enumerate(zip(rows, found, strict=True)):
            if isinstance(face, ImageError):
                unreadable[name] = str(face)
                thumbnails.append(None)
            else:
                numbers_NM[number, : len(MEASURED)] = face.measured
                if face.pixels_HW3 is not None:
                    waiting.append((number, face.pixels_HW3))
                thumbnails.append(face.thumbnail)
            if len(waiting) == batch_size:
                count_masks()
            bar.update()
        count_masks()
    names = [*MEASURED, *(f"mask_{mask}" for mask in range(masks))]
    return Pictures(thumbnails, dict(zip(names, numbers_NM.T, strict=True)), unreadable)


def look_at_face(finder: FaceFinder, size: int | None, face_HW3: Pixels) -> Seen:
    """Thumbnail and measurements of one face."""
    stats, face = measure(face_HW3), finder.find(face_HW3).stats
    measured = (stats.brightness, stats.sharpness, face.face_score, face.face_yaw)
    return Seen(thumbnail(face_HW3), measured, None if size is None else resize(face_HW3, size))


def thumbnail(face_HW3: Pixels) -> bytes:
    """A small JPEG file of a face, with its aspect ratio kept."""
    image = Image.fromarray(face_HW3)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def mask_shares(
    encoder: FaceEncoder, pixels: Sequence[Pixels], masks: int, batch_size: int
) -> NDArray[np.float32]:
    """Each mask's share of each face's pixels, (N, masks); a pixel belongs to its most probable mask."""
    heatmaps_NKHW = encoder.heatmaps(list[Any](pixels), batch_size)
    large = functional.interpolate(heatmaps_NKHW, (GRID, GRID), mode="bilinear", align_corners=False)
    one_hot = functional.one_hot(large.argmax(dim=1).flatten(1), masks).to(torch.float32)
    shares: NDArray[np.float32] = one_hot.mean(dim=1).cpu().numpy()
    return shares
