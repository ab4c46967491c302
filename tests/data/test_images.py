from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fra.data.images import ImageError, decode, decode_jpeg, inspect, to_pixels
from fra.data.shards.strip_metadata import without_metadata


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


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_those_of_pillow_in_every_orientation(subsampling: int, progressive: bool) -> None:
    generator = np.random.default_rng(subsampling)
    coarse = generator.integers(0, 256, (9, 6, 3), dtype=np.uint8)
    for orientation, size in enumerate(
        [(1, 1), (41, 67), (64, 48), (7, 9), (16, 17), (50, 33), (8, 8), (21, 20)], 1
    ):
        image = Image.fromarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"quality": 60 + 5 * orientation, "subsampling": subsampling, "progressive": progressive}
        content = saved(image, "JPEG", exif=exif, **options)
        reference = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
        assert decode_jpeg(content) is not None
        assert np.array_equal(decode(content), reference), orientation


def test_damaged_jpegs_have_the_pixels_of_pillow_or_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (9, 6, 3), dtype=np.uint8)
    whole = saved(Image.fromarray(cv2.resize(coarse, (48, 64), interpolation=cv2.INTER_CUBIC)), "JPEG")
    decoded = 0
    for place in generator.integers(20, len(whole) - 2, 60):
        damaged = whole[:place] + bytes([int(generator.integers(256))]) + whole[place + 1 :]
        try:
            reference = np.asarray(Image.open(io.BytesIO(damaged)).convert("RGB"))
        except Exception:
            continue
        decoded += 1
        assert np.array_equal(decode(damaged), reference)
    assert decoded > 20
    capfd.readouterr()  # libjpeg writes what it finds damaged to standard error
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    form = "JPEG" if mode == "CMYK" else "PNG"
    pixels = decode(saved(Image.new(mode, (8, 6)), form))
    assert pixels.shape == (6, 8, 3)
    assert pixels.dtype == np.uint8


def test_sixteen_bits_keep_their_top_eight() -> None:
    image = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    assert (decode(saved(image, "PNG")) == 255).all()


def grey_png(largest: int) -> bytes:
    ramp = np.linspace(0, largest, 64 * 64).reshape(64, 64).astype(np.uint16)
    return saved(Image.fromarray(ramp), "PNG")


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_files_and_pillow_images_of_16_bits_decode_alike(form: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    image = Image.fromarray(ramp)
    pixels = decode(saved(image, form))
    assert np.array_equal(pixels, to_pixels(image))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(pixels[:, :, 0].astype(float) - ramp / 257).max() <= 1


@pytest.mark.parametrize(("largest", "bits"), [(1023, 10), (4095, 12), (16383, 14)])
def test_a_16_bit_file_with_fewer_bits_is_named(largest: int, bits: int) -> None:
    with pytest.raises(ImageError, match=f"stored with 16 bits but reach only {largest:,} .* {bits} bits"):
        decode(grey_png(largest))


@pytest.mark.parametrize("largest", [0, 1, 255, 20_000, 65_535])
def test_other_16_bit_files_are_read(largest: int) -> None:
    assert decode(grey_png(largest)).max() == pytest.approx(
        largest if largest < 256 else largest / 257, abs=1
    )


def test_a_16_bit_colour_file_with_12_bits_is_named() -> None:
    """Pillow reduces colours to 8 bits, of which 12-bit values reach 15."""
    values = np.random.default_rng(0).integers(0, 4096, (16, 16, 3), dtype=np.uint16)
    for content, refused in ((values, True), (values * 16, False)):
        encoded = cv2.imencode(".png", content)[1].tobytes()
        if refused:
            with pytest.raises(ImageError, match=r"stored with 16 bits .* 12 bits"):
                decode(encoded)
        else:
            assert decode(encoded).max() > 250


def test_a_dark_8_bit_image_is_read() -> None:
    assert decode(saved(Image.new("RGB", (8, 8), (9, 9, 9)), "PNG")).max() == 9


def test_real_numbers_up_to_1_are_shares_of_white() -> None:
    image = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    assert (decode(saved(image, "TIFF")) == to_pixels(image)).all()
    assert decode(saved(image, "TIFF")).max() == 255


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_photographs_of_telephones_are_read(form: str) -> None:
    """Upright, and in the shards as PNG without metadata but with the same pixels."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Ann Example"
    content = saved(image, form, exif=exif.tobytes())
    stripped = without_metadata(content)
    assert decode(content).shape == (30, 40, 3)
    assert np.array_equal(decode(stripped), decode(content))
    assert b"Ann Example" in content
    assert b"Ann Example" not in stripped
    assert inspect(stripped).format == "png"
    assert without_metadata(stripped) == stripped


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
