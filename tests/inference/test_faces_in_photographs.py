"""`--detect`: the faces in photographs are embedded, searched and drawn; without it nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.photographs import write_photographs
from support.workspace import run_fra

import fra
from fra.data.images import decode
from fra.faces.extract import crop_faces
from fra.gallery.embed import embed
from fra.gallery.files import read
from fra.gallery.search import search_images
from fra.inference.detection import Detection
from fra.inference.heatmaps import draw

DEMO = Path("demo")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five files with one, three, one, no and no readable face."""
    whole = write_photographs(tmp_path_factory.mktemp("whole") / "photos", people=3, each=1)
    assert len(list(whole.rglob("*.jpg"))) == 6
    return whole


@pytest.fixture(scope="module")
def gallery(photos: Path) -> Path:
    """Embeddings of all faces."""
    embed([str(photos)], DEMO, photos.parent / "found.parquet", detection=Detection())
    return photos.parent / "found.parquet"


def test_one_row_per_face(photos: Path, gallery: Path) -> None:
    table = pd.read_parquet(gallery)
    assert list(table.columns) == ["image", "face", "box", "score", "embedding"]
    group = str(photos / "p0/group.jpg")
    assert list(zip(table["image"], table["face"], strict=True)) == [
        (str(photos / "p0/0.jpg"), 0),
        *((group, number) for number in range(3)),
        (str(photos / "p1/0.jpg"), 0),
        (str(photos / "p2/0.jpg"), 0),
    ]
    crops = crop_faces(decode(Path(group).read_bytes()))
    rows = table[table["image"] == group]
    assert [list(box) for box in rows["box"]] == [list(crop.face.box) for crop in crops]
    assert list(rows["score"]) == [crop.face.score for crop in crops]
    expected = fra.load("demo").embed([crop.pixels_HW3 for crop in crops])
    torch.testing.assert_close(torch.from_numpy(np.stack(rows["embedding"])), expected)


def test_both_formats_hold_the_same_and_say_how_faces_were_cropped(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.npz"
    skipped = embed([str(photos)], DEMO, out, detection=Detection("aligned"))
    assert list(skipped.no_face) == [str(photos / "p1/landscape.jpg")]
    assert list(skipped.unreadable) == [str(photos / "p2/broken.jpg")]
    known = read(out)
    assert known.crop == "aligned"
    assert known.faces == [0, 0, 1, 2, 0, 0]
    with np.load(out) as content:
        assert content["boxes"].shape == (6, 4)
        assert content["scores"].shape == (6,)


def test_without_detection_the_files_are_as_before(photos: Path, tmp_path: Path) -> None:
    places = [str(photos / "p0")]
    embed(places, DEMO, tmp_path / "e.parquet")
    embed(places, DEMO, tmp_path / "e.npz")
    schema = pq.read_schema(tmp_path / "e.parquet")
    assert schema.names == ["image", "embedding"]
    assert b"faces" not in schema.metadata[b"fra"]
    with np.load(tmp_path / "e.npz") as content:
        assert content.files == ["images", "embeddings", "weights"]
    known = read(tmp_path / "e.npz")
    assert (known.faces, known.crop) == (None, None)
    expected = fra.load("demo").embed([Path(name) for name in known.names])
    np.testing.assert_array_equal(known.embeddings_ND, expected.numpy())


def test_every_face_of_a_query_finds_itself(photos: Path, gallery: Path) -> None:
    group = photos / "p0/group.jpg"
    found = search_images([group], gallery, DEMO, count=2, detect=True)
    first = [result.matches[0] for result in found]
    assert [(match.name, match.face) for match in first] == [(str(group), n) for n in range(3)]
    assert all(match.cosine == pytest.approx(1, abs=1e-5) for match in first)
    sides = [max(result.face.box[2:]) for result in found if result.face is not None]
    assert len(sides) == 3
    assert sides == sorted(sides, reverse=True)
    assert search_images([group], gallery, DEMO)[0].matches[0].face is not None


def test_a_query_is_cropped_as_the_gallery(photos: Path, tmp_path: Path) -> None:
    embed([str(photos)], DEMO, tmp_path / "a.parquet", detection=Detection("aligned"))
    (found,) = search_images([photos / "p1/0.jpg"], tmp_path / "a.parquet", DEMO, detect=True)
    assert found.matches[0].cosine == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="was made with the crop 'aligned'"):
        search_images([photos / "p1/0.jpg"], tmp_path / "a.parquet", DEMO, detect=True, kind="box")


def test_photographs_without_a_face_are_one_clear_error(photos: Path, gallery: Path, tmp_path: Path) -> None:
    landscape = photos / "p1/landscape.jpg"
    with pytest.raises(
        ValueError, match=r"none of 1 file shows a face; .*landscape\.jpg: no face: none with"
    ):
        embed([str(landscape)], DEMO, tmp_path / "e.npz", detection=Detection())
    with pytest.raises(ValueError, match=r"landscape\.jpg: no face: none with a score"):
        search_images([landscape], gallery, DEMO, detect=True)
    assert list(tmp_path.iterdir()) == []


def test_heatmaps_show_the_faces(photos: Path, tmp_path: Path) -> None:
    share, skipped = draw(DEMO, [str(photos / "p0")], tmp_path / "r.png", detection=Detection())
    assert share.sum() == pytest.approx(1)
    assert skipped.no_face == {}
    sheet = Image.open(tmp_path / "r.png")
    assert sheet.width == 4 * (2 * 160 + 8 + 16), "four faces of two photographs"


def test_commands_report_what_is_left_out(photos: Path, tmp_path: Path) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        done = run_fra(tmp_path, *arguments)
        return done.returncode, done.stdout

    code, text = call("embed", str(photos), "--detect", "-w", "demo", "-o", "e.parquet")
    assert code == 1
    assert f"{photos}/p1/landscape.jpg: no face: none with a score" in text
    assert f"not an image: {photos}/p2/broken.jpg: cannot be decoded" in text
    code, text = call(
        "search", str(photos / "p0/group.jpg"), "--in", "e.parquet", "--detect", "-w", "demo", "-n", "1"
    )
    assert code == 0
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["face 0", "face 1", "face 2"]
    assert lines[1::2] == [f" 1.000  {photos}/p0/group.jpg  face {number}" for number in range(3)]
    code, text = call("heatmaps", str(photos), "--crop", "aligned", "-w", "demo", "-o", "h.png")
    assert code == 2
    assert "--crop is used with --detect only" in text
