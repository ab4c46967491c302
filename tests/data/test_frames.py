"""Videos in data sets become records of frames, each video decoded only once."""

from __future__ import annotations

import csv
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.videos import moving_face, pattern, still_camera, write_video

from fra.data.datasets.frames import FrameStore
from fra.data.datasets.ingest import FaceSearch, ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.executors import J
from fra.data.images import decode
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig
from fra.faces.config import FacesConfig


class Counting:
    """An executor in this process that counts the videos that are decoded."""

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def __call__(self, function: Callable[[J], int], jobs: Sequence[J], /) -> list[int]:
        self.decoded += [job.video.name for job in jobs if hasattr(job, "video")]
        return [function(job) for job in jobs]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people with a video each, one of them with a photograph as well."""
    folder = tmp_path_factory.mktemp("videos") / "set"
    for person in range(3):
        write_video(folder / f"p{person}/clip.mp4", moving_face(30, person, seed=person))
    Image.fromarray(next(moving_face(1))).save(folder / "p0/photo.jpg")
    return folder


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    shutil.copytree(originals, tmp_path / "set")
    return tmp_path / "set"


def list_frames(
    folder: Path,
    executor: Counting | None = None,
    withdrawn: frozenset[str] = frozenset(),
    rate: float | None = 5,
    **options: object,
) -> pd.DataFrame:
    config = DatasetConfig("mine", "folder", str(folder), frames_per_second=rate, **options)  # type: ignore[arg-type]
    store = FrameStore(folder.parent / "store", executor=executor or Counting())
    return ingest(config, folder.parent / "raw", withdrawn, frames=store)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_each_frame_is_a_record_of_the_person_and_split_of_its_video(folder: Path) -> None:
    table = list_frames(folder, test=0.5).set_index("key")
    assert len(table) == 3 * 15 + 1
    assert set(table.index) > {"p0/photo", "p0/clip.mp4/00000000", "p2/clip.mp4/00002800"}
    for person, rows in table.groupby("person"):
        assert set(rows.index.str.split("/").str[0]) == {person}
        assert rows["split"].nunique() == 1
    assert table["split"].nunique() == 2
    frame = table.loc["p1/clip.mp4/00001400"]
    assert (frame["photo.video"], frame["photo.seconds"]) == ("p1/clip.mp4", 1.4)
    start, size = frame["span"]
    pixels = decode(Path(frame["source"]).read_bytes()[start : start + size])
    distances = [np.abs(pixels.astype(int) - image).mean() for image in moving_face(30, 1, seed=1)]
    assert np.argmin(distances) == 14


def test_frames_of_one_video_are_in_one_split_where_people_are_unknown(tmp_path: Path) -> None:
    for number in range(6):
        write_video(tmp_path / f"flat/{number}.mp4", pattern(10))
    table = list_frames(tmp_path / "flat", rate=10, test=0.5)
    assert table["person"].isna().all()
    assert table["split"].nunique() == 2
    assert (table.groupby("photo.video")["split"].nunique() == 1).all()


def test_videos_of_one_stem_and_images_keep_keys_of_their_own(folder: Path) -> None:
    shutil.copy(folder / "p0/clip.mp4", folder / "p0/clip.mov")
    (folder / "p0/clip").mkdir()
    shutil.copy(folder / "p0/photo.jpg", folder / "p0/clip/00000000.jpg")
    keys = list_frames(folder)["key"]
    assert keys.is_unique
    assert {"p0/clip.mp4/00000000", "p0/clip.mov/00000000", "p0/clip/00000000"} <= set(keys)


def test_frames_of_a_still_camera_are_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_video(tmp_path / "set/still.mp4", still_camera())
    write_video(tmp_path / "set/moving.mp4", moving_face())
    table = list_frames(tmp_path / "set", rate=10)
    assert table["photo.video"].value_counts().to_dict() == {"moving.mp4": 30, "still.mp4": 1}
    assert (
        "31 frames of 2 videos; 29 near-identical frames dropped; 0 videos damaged, 0 left out" in caplog.text
    )


def test_nothing_is_decoded_twice(folder: Path) -> None:
    counting = Counting()
    first = list_frames(folder, counting)
    assert sorted(counting.decoded) == ["clip.mp4"] * 3
    counting.decoded = []
    pd.testing.assert_frame_equal(list_frames(folder, counting), first)
    assert counting.decoded == []
    os.utime(folder / "p0/clip.mp4", ns=(1, 1))
    shutil.copy(folder / "p1/clip.mp4", folder / "p1/new.mp4")
    list_frames(folder, counting)
    assert sorted(counting.decoded) == ["clip.mp4", "new.mp4"], "the changed one, and the new one"
    counting.decoded = []
    assert len(list_frames(folder, counting, rate=1)) == 4 * 3 + 1
    assert len(counting.decoded) == 4, "another rate"
    next((folder.parent / "store/tars").glob("*.tar")).write_bytes(b"")
    counting.decoded = []
    list_frames(folder, counting, rate=1)
    assert len(counting.decoded) == 1, "a tar that was damaged"


def test_nothing_is_left_of_a_withdrawn_person(folder: Path) -> None:
    list_frames(folder)
    before = files(folder.parent / "store")
    table = list_frames(folder, withdrawn=frozenset({"p1"}))
    assert not (table["person"] == "p1").any()
    kept = files(folder.parent / "store")
    assert len(before) - len(kept) == 2, "the tar and the report"
    assert not any(b"p1" in content for name, content in kept.items() if name.endswith(("csv", "json")))
    tars = {hashlib.sha256(f"p{person}/clip.mp4".encode()).hexdigest()[:32] for person in (0, 2)}
    assert {Path(name).stem for name in kept if name.endswith(".tar")} == tars


def test_damaged_videos_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (folder / "p0/text.mp4").write_text("a text" * 100)
    path = write_video(folder / "p0/cut.mp4", moving_face(60), container_options={"movflags": "faststart"})
    os.truncate(path, path.stat().st_size * 6 // 10)
    counting = Counting()
    table = list_frames(folder, counting)
    assert f"{folder}/p0/text.mp4: left out: not a video in MP4" in caplog.text
    assert re.search(r"p0/cut\.mp4: .*it ends after 1\.\d of 6\.0 s: the file is truncated", caplog.text)
    assert "1 video damaged, 1 left out" in caplog.text
    assert 0 < (table["photo.video"] == "p0/cut.mp4").sum() < 30
    with (folder.parent / "store/tars/videos.csv").open() as stream:
        rows = {row["video"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["p0/clip.mp4", "p0/cut.mp4", "p0/text.mp4", "p1/clip.mp4", "p2/clip.mp4"]
    assert (rows["p0/text.mp4"]["frames"], rows["p0/text.mp4"]["tar"]) == ("0", "")
    assert rows["p0/text.mp4"]["problem"].startswith("not a video")
    assert rows["p1/clip.mp4"]["problem"] == ""
    counting.decoded = []
    caplog.clear()
    list_frames(folder, counting)
    assert counting.decoded == []
    assert "text.mp4: left out" in caplog.text, "named by every run"


def test_without_a_rate_videos_are_left_out_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(list_frames(folder, rate=None)["key"]) == ["p0/photo"]
    assert "3 files skipped, not images by their suffix: 3 .mp4; dataset.frames_per" in caplog.text
    (folder / "p0/photo.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"it holds 3 \.mp4 .*; dataset\.frames_per_second takes frames"
    ):
        list_frames(folder, rate=None)


def test_a_set_without_any_frame_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/text.mp4").write_text("a text" * 100)
    with pytest.raises(ValueError, match="no image, and no video of which frames are taken"):
        list_frames(tmp_path / "set")
    assert "text.mp4: left out" in caplog.text


def test_a_rate_without_videos_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in folder.rglob("*.mp4"):
        file.unlink()
    list_frames(folder)
    assert "no video in it (looked for .avi .m4v" in caplog.text


def test_a_table_may_name_videos(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "labels.csv").write_text(
        "image,person,split,Smiling\np0/clip.mp4,anna,train,1\np0/photo.jpg,anna,train,0\n"
    )
    raw = folder.parent / "raw"
    table = ingest(DatasetConfig("mine", "table", str(folder), frames_per_second=1), raw)
    frames = table[table["photo.video"].notna()]
    assert len(frames) == 3
    assert (set(frames["label.Smiling"]), set(frames["person"])) == ({1}, {"anna"})
    assert set(frames["source"].map(lambda path: Path(path).parent)) == {raw / "videos/tars"}
    assert list(ingest(DatasetConfig("mine", "table", str(folder)), raw)["key"]) == ["p0/photo"]
    assert "1 video left out; dataset.frames_per_second takes frames from them" in caplog.text
    (folder / "labels.csv").write_text("image,x0,y0\np0/clip.mp4,1,2\n")
    with pytest.raises(ValueError, match=r"p0/clip\.mp4: landmarks or a box of a video; list its frames"):
        ingest(DatasetConfig("mine", "table", str(folder), frames_per_second=1), raw)


def test_lfw_and_vggface2_list_videos(folder: Path) -> None:
    top = folder.parent
    shutil.copytree(folder, top / "lfw/lfw-deepfunneled")
    lfw = ingest(DatasetConfig("a", "lfw", str(top / "lfw"), frames_per_second=1), top / "raw").set_index(
        "key"
    )
    assert lfw.loc["p1/clip.mp4/00001000", "photo.video"] == "lfw-deepfunneled/p1/clip.mp4"
    shutil.copytree(folder, top / "vgg/train")
    vgg = ingest(DatasetConfig("b", "vggface2", str(top / "vgg"), frames_per_second=1), top / "raw2")
    assert "train/p1/clip.mp4/00001000" in set(vgg["key"])


def test_names_that_are_no_file_names_or_addresses(folder: Path) -> None:
    long = "ü" * 120 + ".mp4"  # 244 bytes: with .tar or .partial more than a file system allows
    for name in (long, "a::b.mp4", "100%.mp4", "http:x.mp4"):
        shutil.copy(folder / "p1/clip.mp4", folder / "p1" / name)
    table = list_frames(folder, rate=1)
    assert (table["photo.video"].value_counts() == 3).all()
    manifest = shard(table, folder)
    assert manifest["shard"].notna().all()


def shard(records: pd.DataFrame, folder: Path) -> pd.DataFrame:
    out = folder.parent
    places = (folder, out / "shards", out / "manifest.parquet", ShardConfig(workers=1), out / "state")
    return shards.write(records, *places)


def test_the_manifest_names_the_video_and_the_time(folder: Path) -> None:
    manifest = shard(list_frames(folder), folder).set_index("key")
    assert manifest["shard"].notna().all()
    row = manifest.loc["p2/clip.mp4/00001200"]
    assert (row["source"], row["photo.video"], row["photo.seconds"]) == ("p2/clip.mp4", "p2/clip.mp4", 1.2)
    assert manifest.loc["p0/photo", "source"] == "p0/photo.jpg"
    assert (row["width"], row["height"], row["mode"]) == (640, 480, "RGB")


def test_faces_are_found_in_frames(folder: Path) -> None:
    config = DatasetConfig("mine", "folder", str(folder), faces="detect", frames_per_second=1)
    search = FaceSearch(FacesConfig(), folder.parent / "cache", Counting())
    store = FrameStore(folder.parent / "store", executor=Counting())
    table = ingest(config, folder.parent / "raw", search=search, frames=store).set_index("key")
    found = table[table["photo.problem"].isna()]
    assert len(found) >= 3 * 3
    row = found.loc["p1/clip.mp4/00001000"]
    left, _, width, _ = row["face.box"]
    assert 160 - 30 < left < left + width < 160 + 140 + 30  # the face is pasted at 40 + 12 × 10
    manifest = shard(table.reset_index(), folder).set_index("key")
    assert manifest.loc["p1/clip.mp4/00001000", "source"] == "p1/clip.mp4"
    assert manifest.loc["p1/clip.mp4/00001000", "width"] == 224


def test_processes_give_the_same_bytes(folder: Path) -> None:
    first = list_frames(folder)
    expected = files(folder.parent / "store")
    shutil.rmtree(folder.parent / "store")
    config = DatasetConfig("mine", "folder", str(folder), frames_per_second=5)
    table = ingest(config, folder.parent / "raw", frames=FrameStore(folder.parent / "store"))
    pd.testing.assert_frame_equal(table, first)
    assert files(folder.parent / "store") == expected


@pytest.mark.slow
def test_a_killed_run_continues_with_the_same_bytes(folder: Path) -> None:
    list_frames(folder, rate=10)
    expected = files(folder.parent)
    code = (
        "from pathlib import Path; import sys; from fra.data.datasets.ingest import ingest\n"
        "from fra.data.datasets.records import DatasetConfig; from fra.data.datasets.frames import FrameStore\n"
        "from fra.data.executors import local\n"
        "config = DatasetConfig('mine', 'folder', sys.argv[1], frames_per_second=10)\n"
        "top = Path(sys.argv[1]).parent; print('ready', flush=True)\n"
        "ingest(config, top / 'raw', frames=FrameStore(top / 'store', executor=local(1)))"
    )
    for name in ("store", "raw"):
        shutil.rmtree(folder.parent / name)
    generator = random.Random(7)
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(generator.uniform(0.1, 1.5))
            process.send_signal(signal.SIGKILL)
        for tar in (folder.parent / "store/tars").glob("[!.]*.tar"):
            assert tar.read_bytes() == expected[f"store/tars/{tar.name}"], "never half a tar"
        if generator.random() < 0.4:
            shutil.rmtree(folder.parent / "store", ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert files(folder.parent) == expected
