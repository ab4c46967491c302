"""From the bytes of an image file to pixels, in one way everywhere."""

from __future__ import annotations

import io
import struct
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (decompression bombs)."""


class ImageError(ValueError):
    """The bytes are not an image that can be decoded whole; the message says why."""


@dataclass(frozen=True)
class Facts:
    """What the manifest keeps of an image: size in pixels (as displayed, EXIF rotation applied), mode, file format."""

    width: int
    height: int
    mode: str
    format: str


def open_image(content: bytes) -> Image.Image:
    """Opens and decodes an image whole.

    Raises:
        ImageError: empty, not an image, truncated, or larger than `MAX_PIXELS`.
    """
    if not content:
        raise ImageError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}")
        image.load()
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels: {error}") from None
    except UnidentifiedImageError:
        raise ImageError("not an image: no known format begins like this") from None
    except Exception as error:  # decoders raise many kinds; all mean that the bytes are no whole image
        raise ImageError(f"cannot be decoded: {error}") from error
    return image


def inspect(content: bytes) -> Facts:
    """Size, mode and format of an image, after decoding it whole. Raises `ImageError`."""
    image = open_image(content)
    upright = ImageOps.exif_transpose(image)
    return Facts(upright.width, upright.height, image.mode, (image.format or "").lower())


SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG markers that begin a frame, with its size."""
JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
PNG_MODES = {(1, 0): "1", (8, 0): "L", (8, 2): "RGB", (8, 3): "P", (8, 4): "LA", (8, 6): "RGBA"}
"""Pillow's modes by bits and colour type; the rarer ones are decoded to be known."""


def glance(content: bytes) -> Facts:
    """`inspect` without decoding where head and end of a JPEG or PNG tell as much; anything unusual is decoded.

    A file with a sound head and end whose middle is damaged passes; decoding finds it later. Raises `ImageError`.
    """
    return jpeg_facts(content) or png_facts(content) or inspect(content)


def jpeg_facts(content: bytes) -> Facts | None:
    """What the markers of a JPEG say, None where they do not say all: no end, an Exif block (it may be rotated)."""
    if content[:2] != b"\xff\xd8" or content[-2:] != b"\xff\xd9":
        return None
    place = 2
    while place + 10 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker in SOF:
            height, width, channels = struct.unpack_from(">HHB", content, place + 5)
            if 0 < width * height <= MAX_PIXELS and channels in JPEG_MODES:
                return Facts(width, height, JPEG_MODES[channels], "jpeg")
            return None
        if marker == 0xE1 and content[place + 4 : place + 8] == b"Exif":
            return None
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def png_facts(content: bytes) -> Facts | None:
    """What a PNG's header says if all its chunks are whole (by their checksums), else None."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 45:
        return None
    place, whole = 8, memoryview(content)
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind, end = content[place + 4 : place + 8], place + 8 + length
        if kind == b"eXIf" or zlib.crc32(whole[place + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            return None
        if kind == b"IEND":
            width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
            if 0 < width * height <= MAX_PIXELS and (bits, colour) in PNG_MODES:
                return Facts(width, height, PNG_MODES[bits, colour], "png")
            return None
        place = end + 4
    return None


def cut(content: bytes, box: Sequence[int]) -> bytes:
    """The part `box` (left, top, right, bottom) of an image, as far as the image goes, as a JPEG of quality 95.

    Raises:
        ImageError: the image cannot be decoded, or no part of the box is in it.
    """
    left, top, right, bottom = map(int, box)
    pixels = decode(content)[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if pixels.size == 0:
        raise ImageError(f"its box {left, top, right, bottom} is outside of the image")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def decode(content: bytes) -> NDArray[np.uint8]:
    """Pixels (H, W, 3), RGB, upright (EXIF rotation applied). Raises `ImageError`."""
    image = ImageOps.exif_transpose(open_image(content))
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: keep the top 8
        grey = np.asarray(image, dtype=np.float64)
        grey = grey / 257 if grey.max(initial=0) > 255 else grey
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) → (size, size, 3) by area averaging; the aspect is not kept: x scales by size/W, y by size/H."""
    return cast(NDArray[np.uint8], cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))


def members(shard: Path, keys: set[str]) -> Iterator[tuple[str, bytes]]:
    """The image bytes of `keys` in a tar shard, in the shard's order."""
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, suffix = member.name.rpartition(".")
            if suffix != "json" and key in keys:
                stream = tar.extractfile(member)
                assert stream is not None
                yield key, stream.read()


def read(manifest: pd.DataFrame, shards: Path, size: int) -> NDArray[np.uint8]:
    """Pixels (N, size, size, 3) of the manifest's rows, in their order, from the tar shards in the folder `shards`.

    Raises:
        KeyError: a row is in no shard, or its shard does not hold it.
    """
    place = {key: row for row, key in enumerate(manifest["key"])}
    missing = manifest.loc[manifest["shard"].isna(), "key"]
    if len(missing):
        raise KeyError(f"{missing.iloc[0]}: in no shard (it could not be decoded)")
    images = np.empty((len(manifest), size, size, 3), dtype=np.uint8)
    found = 0
    for shard, rows in manifest.groupby("shard", sort=True):
        for key, content in members(shards / str(shard), set(rows["key"])):
            images[place[key]] = resize(decode(content), size)
            found += 1
    if found != len(manifest):
        raise KeyError(f"{shards}: {len(manifest) - found} of {len(manifest)} images are not in the shards")
    return images
