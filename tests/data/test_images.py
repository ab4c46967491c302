from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fra.data.images import ImageError, decode, inspect


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    content = saved(image, "JPEG", exif=exif)
    assert decode(content).shape == (40, 20, 3)
    info = inspect(content)
    assert (info.width, info.height) == (20, 40)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    form = "JPEG" if mode == "CMYK" else "PNG"
    pixels = decode(saved(Image.new(mode, (8, 6)), form))
    assert pixels.shape == (6, 8, 3)
    assert pixels.dtype == np.uint8


def test_sixteen_bits_keep_their_top_eight() -> None:
    image = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    assert (decode(saved(image, "PNG")) == 255).all()


def test_a_decompression_bomb_is_refused_unread() -> None:
    content = saved(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(content) < 100_000
    with pytest.raises(ImageError, match="more than"):
        decode(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_truncated_file_is_refused(form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = saved(noise, form)
    with pytest.raises(ImageError):
        decode(content[: len(content) * 2 // 3])
