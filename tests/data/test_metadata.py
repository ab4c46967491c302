"""Metadata of image files does not get into shards; the pixels do, unchanged."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, TiffImagePlugin

from fra.data.datasets import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.images import ImageError, decode, inspect, read_header
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig
from fra.data.shards.strip_metadata import reencode, without_metadata

SECRET = b"Ann Example, Hauptstrasse 1"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def exif(orientation: int = 1) -> Image.Exif:
    """Camera, author and place, as phones write them."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F], tags[0x0110] = "Example Cameras", "Model 7"
    tags[0x013B] = SECRET.decode()
    tags.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.5), 3: "E", 4: (13.0, 24.0, 17.8)})
    tags.get_ifd(0x8769).update({0x9286: b"ASCII\0\0\0" + SECRET, 0xA431: "serial 12345"})
    return tags


def jpeg(orientation: int = 1, progressive: bool = False) -> bytes:
    """A JPEG with everything that cameras and programs put into one, and a second file after it."""
    options = {"exif": exif(orientation), "comment": SECRET, "icc_profile": b"profile of " + SECRET}
    content = saved(PICTURE, "JPEG", progressive=progressive, restart_marker_blocks=1, **options)
    thumbnail = b"\xff\xe0" + struct.pack(">H", 16 + 3 * 4) + b"JFIF\0\1\1\0\0\1\0\1\2\2" + b"\7" * 12
    app13 = b"\xff\xed" + struct.pack(">H", 2 + len(SECRET)) + SECRET
    return content[:2] + thumbnail + app13 + content[20:] + b"ftypmp42" + SECRET


def png(orientation: int = 1) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", SECRET.decode())
    text.add_itxt("Comment", SECRET.decode(), zip=True)
    return (
        saved(PICTURE, "PNG", exif=exif(orientation), pnginfo=text, icc_profile=SECRET, dpi=(72, 72)) + SECRET
    )


def webp(orientation: int = 1) -> bytes:
    options = {"exif": exif(orientation), "xmp": SECRET, "icc_profile": SECRET}
    return saved(PICTURE, "WEBP", lossless=True, **options) + SECRET


def tiff(orientation: int = 1) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112], tags[0x013B], tags[0x02BC] = orientation, SECRET.decode(), SECRET
    return saved(PICTURE, "TIFF", tiffinfo=tags)


def ppm() -> bytes:
    return saved(PICTURE, "PPM").replace(b"P6\n", b"P6\n# " + SECRET + b"\n") + SECRET


CARRIERS: dict[str, Callable[..., bytes]] = {"jpeg": jpeg, "png": png, "webp": webp, "tiff": tiff}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", CARRIERS)
def test_everything_but_pixels_and_orientation_is_removed(form: str, orientation: int) -> None:
    content = CARRIERS[form](orientation)
    assert SECRET in content
    bare = without_metadata(content)
    for said in (SECRET, b"Example Cameras", b"Model 7", b"serial", b"profile", b"ftyp"):
        assert said not in bare
    kept = Image.open(io.BytesIO(bare)).getexif()
    assert not kept.get_ifd(0x8825)
    assert set(kept) - {0x0112} <= set(Image.open(io.BytesIO(saved(PICTURE, form))).getexif())
    assert np.array_equal(decode(bare), decode(content))
    assert read_header(bare) == inspect(bare)
    assert (inspect(bare).width, inspect(bare).height) == ((40, 24) if orientation < 5 else (24, 40))
    assert without_metadata(bare) == bare


@pytest.mark.parametrize("content", [jpeg(progressive=True), ppm()], ids=["progressive", "ppm"])
def test_other_kinds(content: bytes) -> None:
    bare = without_metadata(content)
    assert SECRET not in bare
    assert np.array_equal(decode(bare), decode(content))


def test_the_orientation_may_be_in_xmp() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = saved(PICTURE, "JPEG", xmp=xmp)
    bare = without_metadata(content)
    assert b"xmpmeta" not in bare
    assert decode(bare).shape == decode(content).shape == (40, 24, 3)


def test_a_second_picture_after_the_first_is_removed() -> None:
    content = saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(90)])
    bare = without_metadata(content)
    assert inspect(content).format == "mpo"
    assert inspect(bare).format == "jpeg"
    assert len(bare) < len(content) / 1.8


PLAIN = {
    "grey jpeg": saved(PICTURE.convert("L"), "JPEG"),
    "jpeg": saved(PICTURE, "JPEG", quality=90),
    "cmyk jpeg": saved(PICTURE.convert("CMYK"), "JPEG"),
    "progressive jpeg": saved(PICTURE, "JPEG", progressive=True, dpi=(300, 300)),
    "png": saved(PICTURE, "PNG", dpi=(72, 72)),
    "palette png": saved(PICTURE.quantize(7), "PNG", transparency=3),
    "16-bit png": saved(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000), "PNG"),
    "webp": saved(PICTURE, "WEBP"),
    "rgba webp": saved(PICTURE.convert("RGBA"), "WEBP", lossless=True),
    "pgm": saved(PICTURE.convert("L"), "PPM"),
    "ppm": saved(PICTURE, "PPM"),
    "bmp": saved(PICTURE, "BMP"),
    "gif": saved(PICTURE.quantize(7), "GIF"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_file_without_metadata_keeps_its_bytes(name: str) -> None:
    assert without_metadata(PLAIN[name]) == PLAIN[name]


@pytest.mark.parametrize("form", ["TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "F"])
def test_reencoded_files_have_the_same_pixels(form: str, mode: str) -> None:
    image = Image.new(mode, (6, 5)) if ";" in mode else PICTURE.convert(mode)
    try:
        content = saved(image, form)
    except (OSError, ValueError):
        pytest.skip(f"no {form} of mode {mode}")
    bare = reencode(content)
    assert np.array_equal(decode(bare), decode(content))


def test_png_metadata_after_the_pixels_is_removed() -> None:
    chunk = b"tEXtAuthor\0" + SECRET
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    plain = PLAIN["png"]
    assert without_metadata(plain[:-12] + late + plain[-12:]) == plain


ANY = [*PLAIN.values(), jpeg(6), png(6), webp(6), tiff(6), ppm()]


@settings(deadline=None)
@given(st.sampled_from(ANY), st.data())
def test_damaged_files_keep_their_pixels_or_are_refused(whole: bytes, data: st.DataObject) -> None:
    """Bytes changed, removed or inserted anywhere: never another error, never other pixels."""
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 12))
        content[place : place + length] = data.draw(st.binary(max_size=12))
    try:
        bare = without_metadata(bytes(content))
        after = decode(bare)
    except ImageError:
        return
    try:
        before = decode(bytes(content))
    except ImageError:
        return  # the damaged part was removed
    assert np.array_equal(before, after)


@pytest.mark.parametrize("keep", [False, True])
def test_shards_keep_metadata_only_where_the_parameter_is_set(keep: bool, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    (root / "a.jpg").write_bytes(jpeg(6))
    (root / "b.png").write_bytes(png())
    records = ingest.ingest(DatasetConfig("faces", "folder", str(root), val=0.0), tmp_path / "raw")
    places = (tmp_path / "shards", tmp_path / "m.parquet")

    def write(keep_metadata: bool) -> bytes:
        config = ShardConfig(workers=1, keep_metadata=keep_metadata)
        manifest = shards.write(records, root, *places, config, tmp_path / "state")
        sizes = manifest.set_index("key")[["width", "height"]]
        assert sizes.loc["a"].tolist() == [24, 40]
        return (tmp_path / "shards" / "train-000000.tar").read_bytes()

    write(not keep)
    assert (SECRET in write(keep)) is keep, "shards written with the other setting are written again"
    with tarfile.open(tmp_path / "shards" / "train-000000.tar") as tar:
        assert sorted(tar.getnames()) == ["a.jpg", "a.json", "b.json", "b.png"]
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["done.json"]
