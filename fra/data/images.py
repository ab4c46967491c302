"""From the bytes of an image file to pixels, in one way everywhere."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (decompression bombs)."""
MAX_SIDE = 65_535
"""Longer sides are refused: no camera makes them, and Pillow takes minutes over a single row of millions."""
MAX_BYTES = 512 * 2**20
"""Larger files are refused before they are read: no image of `MAX_PIXELS` needs more."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded (MPO is a kind of JPEG). Pillow knows many more, and runs another program for one of them (EPS)."""
ORIENTATION = 0x0112
"""The Exif tag of which way up the picture is: 1 to 8."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its orientation."""


class ImageError(ValueError):
    """The bytes are not an image that can be decoded whole; the message says why."""


@dataclass(frozen=True)
class Facts:
    """What the manifest keeps of an image: size in pixels (as displayed, EXIF rotation applied), mode, file format."""

    width: int
    height: int
    mode: str
    format: str


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: it is larger than `MAX_BYTES`, or no plain file (a pipe or a device would be read for ever).
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a plain file, but a pipe, a device or a folder")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{status.st_size:,} bytes are more than {MAX_BYTES:,}")
        return stream.read()


@contextmanager
def decoding() -> Iterator[None]:
    """Decoders raise many kinds of errors: they become one `ImageError`, as all mean that the bytes are no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels: {error}") from None
    except UnidentifiedImageError:
        raise ImageError("not an image: no known format begins like this") from None
    except Exception as error:
        raise ImageError(f"cannot be decoded: {error}") from error


def open_image(content: bytes) -> Image.Image:
    """Opens and decodes an image whole.

    Raises:
        ImageError: empty, not an image of `FORMATS`, truncated, or larger than `MAX_PIXELS` or `MAX_SIDE`.
    """
    with decoding():
        image = header(content)
        image.load()
    return image


def header(content: bytes) -> Image.Image:
    """An image, not yet decoded. Raises `ImageError` where it is too large, and anything where it is none."""
    if not content:
        raise ImageError("the file is empty (0 bytes)")
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{image.width}×{image.height} pixels: a side is longer than {MAX_SIDE:,}")
    return image


def orientation(content: bytes) -> int:
    """Which way up an image file says that its picture is: 1 (upright) to 8. Raises `ImageError`."""
    with decoding():
        return turned(header(content))


def turned(image: Image.Image) -> int:
    """Which way up an image says that it is: 1 (upright) to 8; 1 where what it says cannot be read."""
    try:
        said = image.getexif().get(ORIENTATION, 1)
    except (
        Exception
    ):  # a damaged Exif block makes Pillow raise anything; viewers show such pictures as they are
        return 1
    return said if said in TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture the way up that it says."""
    turn = TURNS.get(turned(image))
    return image if turn is None else image.transpose(turn)


def inspect(content: bytes) -> Facts:
    """Size, mode and format of an image, after decoding it whole. Raises `ImageError`."""
    image = open_image(content)
    seen = upright(image)
    return Facts(seen.width, seen.height, image.mode, (image.format or "").lower())


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
            if (
                0 < width * height <= MAX_PIXELS
                and max(width, height) <= MAX_SIDE
                and (bits, colour) in PNG_MODES
            ):
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
    image = upright(open_image(content))
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
    with tarfile.open(shard, "r:") as tar:
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
