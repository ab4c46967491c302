"""From the bytes of an image file to pixels, in one way everywhere."""

from __future__ import annotations

import io
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps

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
    except Image.UnidentifiedImageError:
        raise ImageError("not an image: no known format begins like this") from None
    except Exception as error:  # decoders raise many kinds; all mean that the bytes are no whole image
        raise ImageError(f"cannot be decoded: {error}") from error
    return image


def inspect(content: bytes) -> Facts:
    """Size, mode and format of an image, after decoding it whole. Raises `ImageError`."""
    image = open_image(content)
    upright = ImageOps.exif_transpose(image)
    return Facts(upright.width, upright.height, image.mode, (image.format or "").lower())


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
