from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fra.data.images import ImageError, crop, decode, inspect, read_header


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "P", "RGBA", "1", "I;16"])
def test_the_header_gives_what_decoding_gives(form: str, mode: str) -> None:
    try:
        content = saved(Image.new(mode, (31, 17)), form)
    except (OSError, KeyError, ValueError):
        pytest.skip("such files do not exist")
    assert read_header(content) == inspect(content)


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"comment": b"x" * 300}, {"icc_profile": b"y" * 900}]
)
def test_other_segments_are_skipped(options: dict[str, object]) -> None:
    content = saved(Image.new("RGB", (31, 17)), "JPEG", **options)
    assert read_header(content) == inspect(content)


def test_exif_rotation_is_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    info = read_header(saved(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert (info.width, info.height) == (20, 40)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(form: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = saved(noise, form)
    with pytest.raises(ImageError):
        read_header(content[: int(len(content) * part)])


def test_a_box_is_cropped_to_the_image() -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[5:10, 10:20] = 200
    part = decode(crop(saved(Image.fromarray(pixels), "PNG"), (10, 5, 40, 12)))
    assert part.shape == (7, 20, 3)
    assert abs(int(part[2, 5, 0]) - 200) < 6
    with pytest.raises(ImageError, match="outside of the image"):
        crop(saved(Image.fromarray(pixels), "PNG"), (50, 5, 60, 12))
