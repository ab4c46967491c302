from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fra.data.images import ImageError, cut, decode, glance, inspect


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "P", "RGBA", "1", "I;16"])
def test_a_glance_says_what_decoding_says(form: str, mode: str) -> None:
    try:
        content = saved(Image.new(mode, (31, 17)), form)
    except (OSError, KeyError, ValueError):
        pytest.skip("there are no such files")
    assert glance(content) == inspect(content)


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"comment": b"x" * 300}, {"icc_profile": b"y" * 900}]
)
def test_a_glance_reads_past_other_segments(options: dict[str, object]) -> None:
    content = saved(Image.new("RGB", (31, 17)), "JPEG", **options)
    assert glance(content) == inspect(content)


def test_a_glance_sees_rotation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = glance(saved(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert (facts.width, facts.height) == (20, 40)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_glance_refuses_what_is_cut_off(form: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = saved(noise, form)
    with pytest.raises(ImageError):
        glance(content[: int(len(content) * part)])


def test_a_box_is_cut_as_far_as_the_image_goes() -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[5:10, 10:20] = 200
    part = decode(cut(saved(Image.fromarray(pixels), "PNG"), (10, 5, 40, 12)))
    assert part.shape == (7, 20, 3)
    assert abs(int(part[2, 5, 0]) - 200) < 6
    with pytest.raises(ImageError, match="outside of the image"):
        cut(saved(Image.fromarray(pixels), "PNG"), (50, 5, 60, 12))
