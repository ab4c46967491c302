"""`fra faces` with the pictures that people have: each gives the right faces, or one clear message."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pillow_heif
import pytest
from PIL import Image
from support.scenes import orl_photographs
from support.workspace import run_fra

from fra.bench.scenes import background
from fra.data.images import TRANSPOSITIONS, decode
from fra.faces.config import FacesConfig
from fra.faces.detect import Pixels
from fra.inference.detection import Detection
from fra.inference.faces import TABLE, Summary, extract

CORNER, SIDE = (330, 90), (150, 183)
"""Left and top of the face in `photo`, and its width and height, in pixels of the upright photograph."""


@pytest.fixture(scope="module")
def photo() -> Pixels:
    """A photograph of 640 by 480 pixels with one face."""
    pixels = background(480, 640, np.random.default_rng(3))
    return paste(pixels, next(islice(orl_photographs(), 20, None)), CORNER, SIDE)


def paste(photo: Pixels, face: Pixels, corner: tuple[int, int], side: tuple[int, int]) -> Pixels:
    """The photograph with a face image resized to `side` at `corner`."""
    (left, top), (width, height) = corner, side
    photo = photo.copy()
    photo[top : top + height, left : left + width] = cv2.resize(face, side, interpolation=cv2.INTER_CUBIC)
    return photo


def extracted(path: Path, out: Path) -> tuple[Summary, pd.DataFrame]:
    summary = extract([str(path)], out, Detection(config=FacesConfig(size=128)))
    return summary, pd.read_parquet(out / TABLE)


def is_inside(box: list[float], corner: tuple[int, int], side: tuple[int, int]) -> bool:
    """Whether a detected box is the face of an image pasted there: its centre, and its size."""
    centre = box[0] + box[2] / 2, box[1] + box[3] / 2
    near = [abs(c - k - s / 2) < 0.15 * s for c, k, s in zip(centre, corner, side, strict=True)]
    return all(near) and 0.5 * side[1] < box[3] < 1.1 * side[1]


def encode(photo: Pixels, suffix: str) -> bytes:
    """The photograph as a file of some kind."""
    image = Image.fromarray(photo)
    stream = io.BytesIO()
    other = Image.new("RGB", image.size, "gray")
    match suffix:
        case ".cmyk.jpg":
            image.convert("CMYK").save(stream, "JPEG", quality=95)
        case ".grey16.png":
            Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).save(stream, "PNG")
        case ".rgb16.png":
            return bytes(cv2.imencode(".png", photo[:, :, ::-1].astype(np.uint16) * 257)[1])
        case ".rgb16.tif":
            return bytes(cv2.imencode(".tif", photo[:, :, ::-1].astype(np.uint16) * 257)[1])
        case ".palette.png":
            image.quantize(256).save(stream, "PNG")
        case ".alpha.png":
            image.convert("RGBA").save(stream, "PNG")
        case ".gif" | ".webp":
            image.save(stream, suffix[1:].upper(), save_all=True, append_images=[other, other], duration=100)
        case ".heic":
            pillow_heif.register_heif_opener(thumbnails=False)
            image.save(stream, "HEIF", quality=90)
        case ".avif":
            image.save(stream, "AVIF", quality=90)
        case ".jfif" | ".JPE" | ".mpo":
            image.save(stream, "JPEG", quality=90)
        case _:
            image.save(stream, {".bmp": "BMP", ".ppm": "PPM", ".tiff": "TIFF"}[suffix])
    return stream.getvalue()


SUFFIXES = (
    *(".cmyk.jpg", ".grey16.png", ".rgb16.png", ".rgb16.tif", ".palette.png", ".alpha.png", ".gif", ".webp"),
    *(".heic", ".avif", ".jfif", ".JPE", ".mpo", ".bmp", ".ppm", ".tiff"),
)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_gives_its_face(suffix: str, photo: Pixels, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/photo{suffix}").write_bytes(encode(photo, suffix))
    summary, table = extracted(tmp_path / "in", tmp_path / "out")
    assert summary.skipped.unreadable == {}
    assert len(table) == 1
    assert is_inside(list(table["box"][0]), CORNER, SIDE)
    crop = decode((tmp_path / "out" / table["crop"][0]).read_bytes())
    assert crop.shape == (128, 128, 3)
    assert 40 < crop[32:96, 32:96].mean() < 215, "neither black nor white"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_boxes_refer_to_the_upright_photograph(
    suffix: str, orientation: int, photo: Pixels, tmp_path: Path
) -> None:
    image = Image.fromarray(photo)
    for stored in Image.Transpose:
        if orientation > 1 and image.transpose(stored).transpose(TRANSPOSITIONS[orientation]) == image:
            image = image.transpose(stored)
            break
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "in").mkdir()
    image.save(tmp_path / f"in/photo{suffix}", exif=exif)
    _, table = extracted(tmp_path / "in", tmp_path / "out")
    assert len(table) == 1
    assert is_inside(list(table["box"][0]), CORNER, SIDE)
    left_eye, right_eye, nose = np.reshape(table["points"][0], (5, 2))[:3]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert nose[1] > max(left_eye[1], right_eye[1])


def test_a_panorama_gives_its_faces(tmp_path: Path) -> None:
    """20,000 by 2,000 pixels: a large face, and two of which the whole picture shows little."""
    tile = background(2000, 2000, np.random.default_rng(4))
    panorama = np.tile(tile, (1, 10, 1))
    places = {(1200, 400): 900, (9100, 1200): 300, (17_777, 700): 200}
    for (corner, width), face in zip(places.items(), islice(orl_photographs(), 20, None, 50), strict=False):
        panorama = paste(panorama, face, corner, (width, width * 112 // 92))
    (tmp_path / "in").mkdir()
    Image.fromarray(panorama).save(tmp_path / "in/panorama.jpg", quality=85)
    _, table = extracted(tmp_path / "in", tmp_path / "out")
    boxes = [list(box) for box in table["box"]]
    for corner, width in places.items():
        side = width, width * 112 // 92
        assert sum(is_inside(box, corner, side) for box in boxes) == 1, (corner, boxes)
    assert len(boxes) == len(places)


def test_a_thumbnail_gives_its_face(tmp_path: Path) -> None:
    face = next(islice(orl_photographs(), 20, None))
    (tmp_path / "in").mkdir()
    Image.fromarray(face).resize((33, 40)).save(tmp_path / "in/thumbnail.png")
    _, table = extracted(tmp_path / "in", tmp_path / "out")
    assert len(table) == 1


def fra_faces(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of the command, without the progress bar."""
    done = run_fra(folder, "faces", *arguments)
    lines = [line.rpartition("\r")[2] for line in done.stdout.splitlines()]
    return done.returncode, [line for line in lines if line and not line.startswith("faces: ")]


def test_what_is_no_photograph_gets_one_message(photo: Pixels, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "empty").mkdir()
    Image.fromarray(photo).save(tmp_path / "in/good.jpg")
    (tmp_path / "in/empty.jpg").touch()
    (tmp_path / "in/text.jpg").write_text("no image")
    code, lines = fra_faces(tmp_path, "in", "-o", "out")
    assert code == 1
    assert lines == [
        "out/faces.parquet",
        "1 face in 3 photographs; 0 without a face, 2 cannot be decoded",
        "not an image: in/empty.jpg: the file is empty (0 bytes)",
        "not an image: in/text.jpg: not an image: no known format begins like this",
    ]
    for place, message in {
        "empty": "error: empty: no image in this folder ",
        "in/*.heic": "error: in/*.heic: no such file or folder, and no file matches it as a pattern",
        "https://host/faces.tar": "error: https://host/faces.tar: crops are written from files of this machine",
        "missing.jpg": "error: missing.jpg: no such file or folder, and no file matches it as a pattern",
    }.items():
        code, lines = fra_faces(tmp_path, place, "-o", "new")
        assert (code, len(lines)) == (1, 1)
        assert lines[0].startswith(message)
        assert not (tmp_path / "new").exists()
