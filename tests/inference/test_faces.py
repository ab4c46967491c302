"""`fra faces`: crops of the faces in photographs, and their table."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from support.photographs import write_photographs
from support.workspace import ROOT, run, run_fra

from fra.data.datasets.ingest import FaceSearch, ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.executors import local
from fra.data.images import decode, members
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig
from fra.faces.config import FacesConfig
from fra.faces.crop import apply
from fra.faces.detect import Face
from fra.faces.extract import crop_faces
from fra.files import new_folder
from fra.gallery.embed import embed
from fra.inference import faces, results_folder
from fra.inference.detection import Detection
from fra.inference.face_drawing import CROPPED, LEFT_OUT, draw_faces
from fra.inference.faces import TABLE, extract, write_table
from fra.inference.results_folder import JOURNAL, STARTED
from pipelines.cli.faces import app

FRA = (sys.executable, "-m", "pipelines.cli")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventeen files: twelve photographs with one face, one with three, one without, a damaged one."""
    return write_photographs(tmp_path_factory.mktemp("photographs") / "photos")


def contents(folder: Path) -> dict[str, str]:
    """All files below a folder, apart from the journal, with the SHA-256 of their bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != JOURNAL)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_command_writes_crops_and_table_and_lists_the_rest(photos: Path, tmp_path: Path) -> None:
    done = run_fra(tmp_path, "faces", str(photos), "-o", "out")
    assert done.returncode == 1, done.stdout
    lines = done.stdout.splitlines()
    assert "out/faces.parquet" in lines
    assert "15 faces in 15 photographs; 1 without a face, 1 cannot be decoded" in lines
    assert any(line.startswith(f"{photos}/p1/landscape.jpg: no face: ") for line in lines)
    assert any(line.startswith(f"not an image: {photos}/p2/broken.jpg: ") for line in lines)
    crops = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg")}
    assert crops == {f"p{person}/{number}_face0.jpg" for person in range(4) for number in range(3)} | {
        f"p0/group_face{number}.jpg" for number in range(3)
    }


def test_table_says_where_each_crop_comes_from(photos: Path, tmp_path: Path) -> None:
    summary = extract([str(photos)], tmp_path / "out", Detection("aligned", FacesConfig(size=96)))
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert list(table.columns) == [
        *("image", "face", "crop", "box", "points", "score", "sharpness", "transform", "size", "image_sha256")
    ]
    assert len(table) == summary.faces == 15
    assert list(table["image"]) == sorted(table["image"])
    for row in table.itertuples():
        original = Path(str(row.image))
        assert row.image_sha256 == hashlib.sha256(original.read_bytes()).hexdigest()
        crop = np.asarray(Image.open(tmp_path / "out" / str(row.crop)))
        assert crop.shape == (96, 96, 3)
        expected = crop_faces(decode(original.read_bytes()), "aligned", FacesConfig(size=96))[int(row.face)]
        assert np.abs(crop.astype(int) - expected.pixels_HW3).mean() < 3  # JPEG
        assert list(row.box) == list(expected.face.box)
        points = apply(np.reshape(row.transform, (2, 3)), np.reshape(row.points, (5, 2)))
        assert points.min() > 10
        assert points.max() < 86
    metadata = json.loads(pq.read_schema(tmp_path / "out" / TABLE).metadata[b"fra"])
    assert (metadata["crop"], metadata["size"], metadata["detector"]) == ("aligned", 96, "yunet")


def test_crops_equal_those_of_a_data_set(photos: Path, tmp_path: Path) -> None:
    """The same bytes as `dataset.faces=detect` writes into shards."""
    extract([str(photos)], tmp_path / "out", Detection())
    config = DatasetConfig("mine", "folder", str(photos), faces="detect")
    search = FaceSearch(FacesConfig(), tmp_path / "cache", local(1))
    records = ingest(config, tmp_path / "raw", search=search)
    shards.write(
        records,
        photos,
        tmp_path / "shards",
        tmp_path / "m.parquet",
        ShardConfig(workers=1),
        tmp_path / "state",
    )
    keys = set(records.loc[records["photo.problem"].isna(), "key"])
    stored = dict(members(tmp_path / "shards/train-000000.tar", keys))
    assert len(stored) == 15
    for key, crop in stored.items():
        name = key if "_face" in key else f"{key}_face0"
        assert (tmp_path / "out" / f"{name}.jpg").read_bytes() == crop


def test_output_is_the_same_in_every_run(photos: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        extract([str(photos)], tmp_path / name, Detection(), tmp_path / f"drawn-{name}")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert contents(tmp_path / "drawn-first") == contents(tmp_path / "drawn-second")
    assert set(contents(tmp_path / "drawn-first")) == {
        *(f"p{person}/{number}.jpg" for person in range(4) for number in range(3)),
        "p0/group.jpg",
        "p1/landscape.jpg",
    }


def test_a_folder_with_other_files_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    for out, drawings in (("out", None), ("new", "out")):
        with pytest.raises(ValueError, match="out: the folder is not empty; give a new or an empty one"):
            extract([str(photos)], tmp_path / out, Detection(), drawings and tmp_path / drawings)
    assert contents(tmp_path) == contents(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/mine.txt"]


def test_photographs_of_the_same_name_do_not_overwrite_each_other(photos: Path, tmp_path: Path) -> None:
    """Two formats of one photograph, a file that is named like a crop, a photograph that is given twice."""
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/b").mkdir()
    for name in ("a/x.jpg", "a/x.jfif", "a/x_face0.jpg", "b/x.jpg"):
        (tmp_path / "in" / name).write_bytes((photos / "p0/0.jpg").read_bytes())
    places = [str(tmp_path / "in" / name) for name in ("a", "b", "a/x.jpg")]
    extract(places, tmp_path / "out", Detection())
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert len(table) == table["crop"].nunique() == 4
    assert set(table["crop"]) == {name for name in contents(tmp_path / "out") if name != TABLE}
    assert {"a/x_face0_face0.jpg", "b/x_face0.jpg"} < set(table["crop"])


def test_names_are_relative_to_the_folder_that_was_given(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    for number, place in enumerate([".", "p0", "p0/0.jpg", "p*/0.jpg", "../photos"]):
        extract([place], tmp_path / str(number), Detection(config=FacesConfig(keep="largest", size=16)))
    crops = [set(contents(tmp_path / str(number))) - {TABLE} for number in range(5)]
    assert crops[0] == crops[4]
    assert "p0/0_face0.jpg" in crops[0]
    assert crops[1] == {"0_face0.jpg", "1_face0.jpg", "2_face0.jpg", "group_face0.jpg"}
    assert crops[2] == {"0_face0.jpg"}
    assert crops[3] == {f"p{person}/0_face0.jpg" for person in range(4)}


def test_folders_of_results_may_be_below_the_photographs(photos: Path, tmp_path: Path) -> None:
    """Crops are not searched for faces in the next run; drawings may be below the crops."""
    shutil.copytree(photos / "p3", tmp_path / "in")
    for taken_over in (0, 3):
        summary = extract([str(tmp_path / "in")], tmp_path / "in/out", Detection(), tmp_path / "in/out/drawn")
        assert (summary.photos, summary.taken_over) == (3, taken_over)
    assert len(contents(tmp_path / "in/out")) == 3 + 1 + 3
    with pytest.raises(ValueError, match="all photographs that were given are in the folder of the crops"):
        extract([str(tmp_path / "in/out/*.jpg")], tmp_path / "in/out", Detection())
    with pytest.raises(ValueError, match="new: crops and drawings need a folder each"):
        extract([str(tmp_path / "in")], tmp_path / "new", Detection(), tmp_path / "new/../new")
    assert not (tmp_path / "new").exists()


def start_faces(photos: Path, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*FRA, "faces", str(photos), "-o", str(out), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a test run in the background ignores it
    )


def finished(out: Path) -> dict[str, int]:
    """The crops of an unfinished run that its journal names, with their times of change."""
    lines = (out / ".partial" / STARTED).read_text().splitlines(keepends=True)[1:]
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    names = [name for *_, files in entries for folder, name, _ in files if folder == 0]
    return {name: (out / ".partial/files" / name).stat().st_mtime_ns for name in names}


@pytest.mark.parametrize("by", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_is_continued_by_the_same_command(
    photos: Path, tmp_path: Path, by: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No photograph is searched again; the result is that of an undisturbed run."""
    process = start_faces(photos, tmp_path / "out", "--draw", str(tmp_path / "drawn"))
    while process.poll() is None and len(list((tmp_path / "out").rglob("*.jpg"))) < 5:
        time.sleep(0.002)
    process.send_signal(by)
    assert process.wait() != 0
    before = finished(tmp_path / "out")
    assert 1 <= len(before) < 15
    assert {path.name for path in tmp_path.glob("*/*")} == {".partial"}
    half = tmp_path / "out/.partial/files/p9/half.jpg"
    half.parent.mkdir()
    half.write_bytes(b"half-written, of a photograph that is gone")
    after: dict[str, int] = {}

    def write(*arguments: Any) -> None:
        write_table(*arguments)
        after.update(finished(tmp_path / "out"))

    with monkeypatch.context() as patch:
        patch.setattr(faces, "write_table", write)
        extract([str(photos)], tmp_path / "out", Detection(), tmp_path / "drawn")
    assert {name: after[name] for name in before} == before
    extract([str(photos)], tmp_path / "other", Detection(), tmp_path / "other-drawn")
    assert contents(tmp_path / "out") == contents(tmp_path / "other")
    assert contents(tmp_path / "drawn") == contents(tmp_path / "other-drawn")
    assert not (tmp_path / "out/p9").exists()


def test_a_later_run_brings_the_folder_up_to_date(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photograph changes, one is removed, one is added: the others are not searched again, also after a kill."""
    shutil.copytree(photos / "p0", tmp_path / "in")
    shutil.copytree(photos / "p1", tmp_path / "in/sub")
    places, out, drawn = [str(tmp_path / "in")], tmp_path / "out", tmp_path / "drawn"
    extract(places, out, Detection(), drawn)
    (out / "sub/mine.txt").touch()
    before = contents(out)
    times = {name: (out / name).stat().st_mtime_ns for name in before}
    shutil.copy(photos / "p2/0.jpg", tmp_path / "in/0.jpg")
    shutil.rmtree(tmp_path / "in/sub")
    shutil.copytree(photos / "p3", tmp_path / "in/sub/new")
    with monkeypatch.context() as patch:
        patch.setattr(faces, "write_table", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(places, out, Detection(), drawn)
    assert {name: contents(out)[name] for name in before} == before, "until the next run is complete"
    for moves in (0, 3):  # killed after so many files are moved
        with monkeypatch.context() as patch:
            patch.setattr(results_folder.os, "replace", interrupt_after(moves, os.replace))
            with pytest.raises(KeyboardInterrupt):
                extract(places, out, Detection(), drawn)
    summary = extract(places, out, Detection(), drawn)
    assert (summary.photos, summary.taken_over, summary.removed) == (7, 7, 0)
    extract(places, tmp_path / "new", Detection(), tmp_path / "new-drawn")
    assert contents(out) == contents(tmp_path / "new") | {"sub/mine.txt": before["sub/mine.txt"]}
    assert contents(drawn) == contents(tmp_path / "new-drawn")
    assert all((out / name).stat().st_mtime_ns == times[name] for name in ("1_face0.jpg", "group_face2.jpg"))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def interrupt_after(count: int, function: Callable[..., None]) -> Callable[..., None]:
    """The function, but with an interruption after `count` calls, so that the rest is left to the next run."""
    calls = iter(range(count))

    def call(*arguments: Any) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        function(*arguments)

    return call


def test_a_folder_of_other_settings_or_photographs_is_refused(photos: Path, tmp_path: Path) -> None:
    """Nothing changes in it; nor is a file that was put there replaced."""
    places, out = [str(photos / "p3")], tmp_path / "out"
    extract(places, out, Detection())
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"out: made with size=224, not 96; give a new folder, or the settings"
    ):
        extract(places, out, Detection(config=FacesConfig(size=96)))
    with pytest.raises(ValueError, match=r"out: made from .*p3, not from .*p1; give a new folder, or"):
        extract([str(photos / "p1")], out, Detection())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/0.jpg").touch()
    with pytest.raises(ValueError, match=r"mine: the folder is not empty; give a new or an empty one"):
        extract(places, out, Detection(), tmp_path / "mine")
    (tmp_path / "mine/0.jpg").unlink()
    extract(places, out, Detection(), tmp_path / "mine")  # with drawings: all are searched again
    assert (
        contents(out).items() <= {name.removeprefix("out/"): value for name, value in before.items()}.items()
    )
    assert set(contents(tmp_path / "mine")) == {"0.jpg", "1.jpg", "2.jpg"}


@pytest.mark.slow
def test_kills_at_random_moments_give_the_bytes_of_an_undisturbed_run(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "p0", tmp_path / "in/first")
    for number in range(8):
        shutil.copytree(photos / "p1", tmp_path / f"in/{number}")
    begin = time.monotonic()
    assert start_faces(tmp_path / "in", tmp_path / "undisturbed").wait() == 0
    duration = time.monotonic() - begin
    generator = np.random.default_rng(0)
    for _ in range(10):
        process = start_faces(tmp_path / "in", tmp_path / "out")
        time.sleep(generator.uniform(0.3, 0.7) * duration)
        process.kill()
        process.wait()
        if (tmp_path / "out" / TABLE).exists():
            shutil.rmtree(tmp_path / "out")  # complete: the next one begins again
    if not (tmp_path / "out" / TABLE).exists():
        assert start_faces(tmp_path / "in", tmp_path / "out").wait() == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_second_process_is_refused(photos: Path, tmp_path: Path) -> None:
    with new_folder(tmp_path / "out"), pytest.raises(ValueError, match="another process is writing"):
        extract([str(photos)], tmp_path / "out", Detection())


def test_a_full_disk_names_the_folder_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    command = f"ulimit -f 8; exec {' '.join(FRA)} faces {photos} -o out"
    # Python 3.11 would also cut off the bytecode that it writes into the project, which no later process could load.
    done = run(tmp_path, "bash", "-c", command, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 1
    assert "error: out: File too large: make room for it (disk, quota, ulimit -f)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_table_can_hold_is_refused_at_once(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/Zoë.jpg").write_bytes((photos / "p0/0.jpg").read_bytes())
    extract([str(tmp_path / "in")], tmp_path / "good", Detection())
    (tmp_path / "in/Zoë.jpg").rename(tmp_path / "in" / os.fsdecode(b"Zo\xeb.jpg"))
    with pytest.raises(ValueError, match=r"'Zo\\udceb\.jpg': the name of this file is not UTF-8"):
        extract([str(tmp_path / "in")], tmp_path / "out", Detection())
    with pytest.raises(ValueError, match="is not UTF-8"):
        embed([str(tmp_path / "in")], Path("demo"), tmp_path / "out.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "good"}


def test_options_are_those_of_the_parameters() -> None:
    """Every field of `FacesConfig` is an option with its default, and reaches the result."""
    context = typer.main.get_command(app).make_context("faces", ["in", "-o", "out"])
    given = {name: value for name, value in context.params.items() if name in asdict(FacesConfig())}
    assert given == asdict(FacesConfig())
    for arguments in (["--score", "0.2"], ["--size", "0"], ["--margin", "3"], ["--keep", "some"]):
        with pytest.raises(typer.BadParameter):
            typer.main.get_command(app).make_context("faces", ["in", "-o", "out", *arguments])


def test_limits_choose_the_faces(photos: Path, tmp_path: Path) -> None:
    def count(**options: object) -> int:
        out = tmp_path / "-".join(map(str, options.values()))
        summary = extract([str(photos / "p0")], out, Detection(config=FacesConfig(**options)))  # type: ignore[arg-type]
        return summary.faces

    assert count() == 6
    assert count(keep="largest") == 4
    assert count(min_side=400) == 0
    assert count(score=0.999) == 0


def test_drawing_marks_cropped_and_other_faces() -> None:
    photo = np.full((300, 400, 3), 128, np.uint8)
    face = Face(
        (100, 100, 80, 100), np.array([[120, 130], [160, 130], [140, 150], [125, 180], [155, 180]]), 0.9
    )
    drawn = draw_faces(photo, [face], [face.shifted(200, 50)])
    assert drawn.shape == photo.shape
    np.testing.assert_array_equal(drawn[130, 120], CROPPED)
    np.testing.assert_array_equal(drawn[180, 320], LEFT_OUT)
    assert (drawn[:80] == 128).all(), "only near the face"


@pytest.mark.parametrize("size", [(40, 40), (1000, 750), (20_000, 200)])
def test_lines_are_visible_at_any_size(size: tuple[int, int]) -> None:
    """A row through the face crosses both sides of the box, each a part of the whole that can be seen."""
    width, height = size
    left, top, side = width * 0.05, height * 0.1, height * 0.8
    face = Face((left, top, side, side), np.full((5, 2), (left + side / 2, top + side / 4)), 0.9)
    drawn = draw_faces(np.full((height, width, 3), 128, np.uint8), [face])
    row = drawn[drawn.shape[0] // 2]
    coloured = (row == CROPPED).all(axis=1).sum() / 2
    assert coloured >= max(1, (drawn.shape[0] * drawn.shape[1]) ** 0.5 / 400)
    assert min(drawn.shape[:2]) >= 200 or max(drawn.shape[:2]) > 400
