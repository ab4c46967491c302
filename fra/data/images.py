"""Decodes image files to pixels: one decoding for data sets, training and inference."""

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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    import pandas as pd

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (decompression bombs)."""
MAX_SIDE = 65_535
"""Longer sides are refused: no camera produces them, and Pillow takes minutes for a single row of millions."""
MAX_BYTES = 512 * 2**20
"""Larger files are refused before they are read: no image of `MAX_PIXELS` needs more."""
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are decoded (MPO is a kind of JPEG). Pillow has many more; for one of them (EPS) it runs a program."""
OTHERS = tuple(name for name in FORMATS if name != "HEIF")
"""Those that Pillow decodes by itself."""
ORIENTATION = 0x0112
"""The Exif tag of the orientation, 1 (upright) to 8."""
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by its Exif orientation."""


class ImageError(ValueError):
    """The bytes are not an image that can be decoded completely; the message gives the reason."""


@dataclass(frozen=True)
class ImageInfo:
    """What the manifest stores about an image file.

    Attributes:
        width: In pixels, after the Exif rotation.
        height: In pixels, after the Exif rotation.
        mode: Pillow's mode (`RGB`, `L` …).
        format: Pillow's format in lower case (`jpeg`, `png` …).
    """

    width: int
    height: int
    mode: str
    format: str


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: The file is larger than `MAX_BYTES`, or is a pipe, a device or a folder.
        OSError: The file cannot be read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a plain file, but a pipe, a device or a folder")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{status.st_size:,} bytes are more than {MAX_BYTES:,}")
        return stream.read()


@cache
def _register_heif() -> None:
    """Adds HEIF to the formats of Pillow; imported at its first file, so that machines without HEIF files need none."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


@contextmanager
def decoding() -> Iterator[None]:
    """Turns any exception of a decoder into an `ImageError`, and silences its warnings."""
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
    """The completely decoded image in the bytes of a file.

    Raises:
        ImageError: The file is empty, not in one of `FORMATS`, truncated, or larger than `MAX_PIXELS` or `MAX_SIDE`.
    """
    with decoding():
        image = open_lazily(content)
        image.load()
    return image


def open_lazily(content: bytes) -> Image.Image:
    """The image in the bytes of a file, with its header read and its pixels not yet decoded.

    Raises:
        ImageError: The image is too large, or the file is empty.
        Exception: Whatever Pillow raises where the bytes are not an image; call it inside `decoding()`.
    """
    if not content:
        raise ImageError("the file is empty (0 bytes)")
    may_be_heif = content[4:8] == b"ftyp"
    if may_be_heif:
        _register_heif()
    image = Image.open(io.BytesIO(content), formats=FORMATS if may_be_heif else OTHERS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{image.width}×{image.height} pixels: a side is longer than {MAX_SIDE:,}")
    return image


def orientation(content: bytes) -> int:
    """The Exif orientation of an image file, 1 (upright) to 8.

    Raises:
        ImageError: The file is not an image.
    """
    with decoding():
        return exif_orientation(open_lazily(content))


def exif_orientation(image: Image.Image) -> int:
    """The Exif orientation of an image, 1 (upright) to 8; 1 where it has none or it cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises anything on a damaged Exif block; image viewers then ignore it, too
        return 1
    return value if value in TRANSPOSITIONS else 1


def upright(image: Image.Image) -> Image.Image:
    """The image with its Exif rotation applied."""
    transposition = TRANSPOSITIONS.get(exif_orientation(image))
    return image if transposition is None else image.transpose(transposition)


def inspect(content: bytes) -> ImageInfo:
    """Size, mode and format of an image file, after decoding it completely.

    Raises:
        ImageError: The image cannot be decoded.
    """
    image = open_image(content)
    shown = upright(image)
    return ImageInfo(shown.width, shown.height, image.mode, (image.format or "").lower())


START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG markers that begin a frame, which holds the image size."""
JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
"""Pillow's mode by the number of channels of a JPEG."""
PNG_MODES = {(1, 0): "1", (8, 0): "L", (8, 2): "RGB", (8, 3): "P", (8, 4): "LA", (8, 6): "RGBA"}
"""Pillow's mode by bit depth and colour type of a PNG; rarer combinations are decoded instead."""


def read_header(content: bytes) -> ImageInfo:
    """What `inspect` returns, without decoding where the header and end of a JPEG or PNG are enough.

    A file with a valid header and end but damaged data in between passes; decoding finds it later.

    Raises:
        ImageError: The file is not an image, or is truncated.
    """
    return jpeg_info(content) or png_info(content) or inspect(content)


def jpeg_info(content: bytes) -> ImageInfo | None:
    """What the markers of a JPEG contain; None where that is not enough: no end marker, or an Exif block (rotation)."""
    if content[:2] != b"\xff\xd8" or content[-2:] != b"\xff\xd9":
        return None
    place = 2
    while place + 10 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker in START_OF_FRAME:
            height, width, channels = struct.unpack_from(">HHB", content, place + 5)
            if 0 < width * height <= MAX_PIXELS and channels in JPEG_MODES:
                return ImageInfo(width, height, JPEG_MODES[channels], "jpeg")
            return None
        if marker == 0xE1 and content[place + 4 : place + 8] == b"Exif":
            return None
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def png_info(content: bytes) -> ImageInfo | None:
    """What the header of a PNG contains if the checksums of all chunks are right, otherwise None."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 45:
        return None
    place, view = 8, memoryview(content)
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind, end = content[place + 4 : place + 8], place + 8 + length
        if kind == b"eXIf" or zlib.crc32(view[place + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            return None
        if kind == b"IEND":
            width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
            if (
                0 < width * height <= MAX_PIXELS
                and max(width, height) <= MAX_SIDE
                and (bits, colour) in PNG_MODES
            ):
                return ImageInfo(width, height, PNG_MODES[bits, colour], "png")
            return None
        place = end + 4
    return None


def crop(content: bytes, box: Sequence[int]) -> bytes:
    """The part of an image inside `box` as a JPEG of quality 95.

    Args:
        content: The image file.
        box: Left, top, right, bottom in pixels; what is outside of the image is ignored.

    Raises:
        ImageError: The image cannot be decoded, or the box is outside of it.
    """
    left, top, right, bottom = map(int, box)
    pixels = decode(content)[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if pixels.size == 0:
        raise ImageError(f"its box {left, top, right, bottom} is outside of the image")
    return to_jpeg(pixels)


def to_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (H, W, 3) as a JPEG of quality 95, with colour at full resolution."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def decode(content: bytes) -> NDArray[np.uint8]:
    """The pixels of an image file: (H, W, 3), RGB, with the Exif rotation applied.

    Raises:
        ImageError: The image cannot be decoded.
    """
    with decoding():
        image = open_lazily(content)
        if image.format == "JPEG" and image.mode == "RGB" and content.endswith(b"\xff\xd9"):
            pixels = decode_jpeg(content)
            if pixels is not None and pixels.shape[1::-1] == image.size:
                return upright_pixels(pixels, exif_orientation(image))
        deep = has_16_bits(image)
        image.load()
        return to_pixels(image, deep)


def decode_jpeg(content: bytes) -> NDArray[np.uint8] | None:
    """The pixels (H, W, 3) of a complete JPEG in colour as they are stored, without the Exif rotation; None on failure.

    Through OpenCV, which calls the same library as Pillow with the same settings, but copies the pixels once less.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cast("NDArray[np.uint8] | None", cv2.imdecode(np.frombuffer(content, np.uint8), flags))


def upright_pixels(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) after the rotation of an Exif orientation, as `upright` applies it to an image."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def has_16_bits(image: Image.Image) -> bool:
    """Whether an image that is not yet decoded stores 16 bits per value; Pillow reduces colours to 8 on decoding."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return any("16" in str(part[0] if isinstance(part, tuple) and part else part) for part in arguments)


def to_pixels(image: Image.Image, deep: bool = False) -> NDArray[np.uint8]:
    """The pixels of a decoded image: (H, W, 3), RGB, with the Exif rotation applied.

    Of values with 16 bits and more the upper 8 are kept; where all of them are below 256, they are taken as they are.
    Real numbers up to 1 are taken as shares of white.

    Args:
        image: The image, in any of Pillow's modes.
        deep: Whether Pillow has reduced it from 16 bits to 8.

    Raises:
        ImageError: The image is stored with 16 bits but all values need less than 15 of them, as cameras and scanners
            write 10 to 14 bits: it would be nearly black.
    """
    image = upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        largest = grey.max(initial=0)
        if 255 < largest < NEARLY_BLACK * 257:
            raise ImageError(range_problem(f"{largest:,.0f}", largest))
        if image.mode == "F" and largest <= 1:
            grey = grey * 255
        grey = grey / 257 if largest > 255 else grey
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if deep and 0 < (largest := int(pixels.max(initial=0))) < NEARLY_BLACK:
        raise ImageError(range_problem(f"about {largest * 257:,}", largest * 257))
    return pixels


NEARLY_BLACK = 64
"""Largest 8-bit value of an image with 16 bits below which its values are taken to have 14 bits or less."""


def range_problem(largest: str, value: float) -> str:
    """The message on an image whose 16 bits are not used."""
    bits = int(value).bit_length()
    return (
        f"its values are stored with 16 bits but reach only {largest} of 65,535, as if they had {bits} bits: it would "
        "be nearly black; scale them to 16 bits (or to 8)"
    )


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scales (H, W, 3) to (size, size, 3) by area averaging; the aspect ratio is not kept."""
    return cast(NDArray[np.uint8], cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))


def members(shard: Path, keys: set[str]) -> Iterator[tuple[str, bytes]]:
    """Key and image file of each of `keys` in a tar shard, in the shard's order."""
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            key, _, suffix = member.name.rpartition(".")
            if suffix != "json" and key in keys:
                stream = tar.extractfile(member)
                assert stream is not None
                yield key, stream.read()


def read(manifest: pd.DataFrame, shards: Path, size: int) -> NDArray[np.uint8]:
    """Reads the images of the manifest's rows from tar shards.

    Args:
        manifest: Rows with `key` and `shard`.
        shards: The folder of the tar shards.
        size: Side in pixels to which each image is scaled.

    Returns:
        Pixels (N, size, size, 3), in the order of the rows.

    Raises:
        KeyError: A row is in no shard, or is missing in its shard.
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
