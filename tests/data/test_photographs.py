"""Photographs become records of faces, each photograph searched only once."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.photographs import write_photographs

from fra.data.datasets import photos
from fra.data.datasets.ingest import FaceSearch, ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.executors import J
from fra.data.images import decode, members
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig
from fra.faces.config import FacesConfig
from fra.faces.crop import apply
from fra.files import sha256


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs") / "photos")


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    shutil.copytree(originals, tmp_path / "photos")
    return tmp_path / "photos"


class Counting:
    """An executor in this process that counts the photographs that are searched."""

    def __init__(self) -> None:
        self.searched = 0

    def __call__(self, function: Callable[[J], int], jobs: Sequence[J], /) -> list[int]:
        done = [function(job) for job in jobs]
        self.searched += sum(done)
        return done


def list_faces(folder: Path, executor: Counting | None = None, **options: object) -> pd.DataFrame:
    crop = str(options.pop("crop", "box"))
    config = DatasetConfig("mine", "folder", str(folder), faces="detect", crop=crop)  # type: ignore[arg-type]
    search = FaceSearch(FacesConfig(**options), folder.parent / "cache", executor or Counting())  # type: ignore[arg-type]
    return ingest(config, folder.parent / "raw", search=search)


def test_one_record_per_face_follows_its_photograph(folder: Path) -> None:
    table = list_faces(folder).set_index("key")
    assert {f"p0/group_face{number}" for number in range(3)} <= set(table.index)
    assert len(table) == 4 * 3 + 3 + 2
    group = table[table["source"] == "p0/group.jpg"]
    assert set(group["person"]) == {"p0"}
    assert group["split"].nunique() == 1
    assert set(group["photo.faces"]) == {3}
    digest = hashlib.sha256((folder / "p0/group.jpg").read_bytes()).hexdigest()
    assert set(group["photo.sha256"]) == {digest}
    assert (group["face.score"] >= 0.6).all()
    one = table.loc["p3/1"]
    left, top, width, height = one["face.box"]
    assert 60 - 30 < left < left + width < 60 + 140 + 30
    matrix = np.reshape(one["face.transform"], (2, 3))
    middle = apply(matrix, np.array([[left + width / 2, top + height / 2]]))
    np.testing.assert_allclose(middle, [[112, 112]], atol=1e-6)


def test_a_photograph_without_a_face_or_that_is_broken_is_listed_with_the_reason(folder: Path) -> None:
    table = list_faces(folder).set_index("key")
    problems = table["photo.problem"].dropna()
    assert set(problems.index) == {"p1/landscape", "p2/broken"}
    assert problems["p1/landscape"].startswith("no face: ")
    assert "faces.score" in problems["p1/landscape"]
    assert "truncated" in problems["p2/broken"]


@pytest.mark.parametrize(
    ("options", "faces", "reason"),
    [
        ({"min_side": 400}, 0, "fewer than 400 \\(faces.min_side\\)"),
        ({"min_sharpness": 9.0}, 0, "faces.min_sharpness"),
        ({"keep": "largest"}, 4 * 3 + 1, None),
    ],
)
def test_parameters_decide_which_faces_are_cropped(
    folder: Path, options: dict[str, object], faces: int, reason: str | None
) -> None:
    if reason:
        with pytest.raises(ValueError, match=f"no face in any of 15 photographs; .*{reason}"):
            list_faces(folder, **options)
    else:
        assert list_faces(folder, **options)["photo.problem"].isna().sum() == faces


def test_nothing_is_searched_twice(folder: Path) -> None:
    counting = Counting()
    first = list_faces(folder, counting)
    assert counting.searched == 15
    pd.testing.assert_frame_equal(list_faces(folder, counting), first)
    list_faces(folder, counting, score=0.8, keep="largest", crop="aligned", size=112)
    assert counting.searched == 15, "other crops of the same faces"
    shutil.copy(folder / "p0/0.jpg", folder / "p0/new.jpg")
    os.utime(folder / "p1/1.jpg", ns=(1, 1))
    list_faces(folder, counting)
    assert counting.searched == 17, "the new one, and the one that changed"
    (folder / "p0/new.jpg").unlink()
    list_faces(folder, counting)
    assert len(photos.read_cache(folder.parent / "cache")) == 15, (
        "nothing is kept of a photograph that is gone"
    )


def test_an_interrupted_search_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "PHOTOS_PER_JOB", 4)
    whole = list_faces(folder)
    shutil.rmtree(folder.parent / "cache")

    class Dying(Counting):
        def __call__(self, function: Callable[[J], int], jobs: Sequence[J], /) -> list[int]:
            super().__call__(function, jobs[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list_faces(folder, Dying())
    counting = Counting()
    pd.testing.assert_frame_equal(list_faces(folder, counting), whole)
    assert counting.searched == 15 - 8


def test_landmarks_follow_the_crop(folder: Path) -> None:
    """The annotated face of a group is the one at its landmarks, which move with it."""
    plain = DatasetConfig("mine", "table", str(folder), faces="detect", crop="aligned")
    search = FaceSearch(FacesConfig(size=112), folder.parent / "cache", Counting())
    faces = list_faces(folder)
    middle = faces[faces["key"].str.startswith("p0/group")]["face.box"].sort_values(
        key=lambda box: box.str[0]
    )
    left, top, width, height = middle.iloc[1]
    eyes = [left + width * 0.3, top + height * 0.4, left + width * 0.7, top + height * 0.4]
    (folder / "labels.csv").write_text(
        "image,split,Smiling,x0,y0,x1,y1\n"
        f"p0/group.jpg,train,1,{','.join(map(str, eyes))}\np3/1.jpg,train,0,,,,\n"
    )
    table = ingest(plain, folder.parent / "raw", search=search).set_index("key")
    assert list(table.index) == ["p0/group", "p3/1"]
    one = table.loc["p0/group"]
    assert one["face.box"] == [left, top, width, height]
    assert one["label.Smiling"] == 1
    matrix = np.reshape(one["face.transform"], (2, 3))
    np.testing.assert_allclose(np.reshape(one["landmarks"], (2, 2)), apply(matrix, np.reshape(eyes, (2, 2))))
    assert table.loc["p3/1", "landmarks"] is None


def test_shards_hold_the_crops_and_the_manifest_their_origin(folder: Path) -> None:
    records = list_faces(folder, crop="aligned", size=96)
    out = folder.parent
    manifest = shards.write(
        records, folder, out / "shards", out / "manifest.parquet", ShardConfig(workers=1), out / "state"
    )
    crops = manifest[manifest["shard"].notna()]
    assert len(crops) == 15
    assert set(crops["width"]) == set(crops["height"]) == {96}
    stored = dict(members(out / "shards/train-000000.tar", set(crops["key"])))
    for row in crops.itertuples():
        assert hashlib.sha256(stored[row.key]).hexdigest() == row.sha256
        assert decode(stored[row.key]).shape == (96, 96, 3)
    assert {"photo.sha256", "face.box", "face.points", "face.score", "face.transform"} <= set(manifest)
    listed = manifest[manifest["shard"].isna()].set_index("key")
    assert set(listed.index) == {"p1/landscape", "p2/broken"}
    photo = (folder / "p1/landscape.jpg").read_bytes()
    assert listed.loc["p1/landscape", "sha256"] == hashlib.sha256(photo).hexdigest()
    assert listed.loc["p1/landscape", "bytes"] == len(photo)
    assert listed.loc["p1/landscape", "error"].startswith("no face")


PROGRAM = """
import sys
from pathlib import Path
from fra.data.datasets import ingest as datasets, photos
from fra.data.datasets.records import DatasetConfig
from fra.faces.config import FacesConfig
photos.PHOTOS_PER_JOB = 2
folder, out = map(Path, sys.argv[1:])
print("started", flush=True)
config = DatasetConfig("mine", "folder", str(folder), faces="detect")
datasets.ingest(config, out / "raw", search=datasets.FaceSearch(FacesConfig(), out / "cache"))
"""


@pytest.mark.slow
def test_a_search_killed_at_any_moment_continues_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for number in range(60):
        shutil.copy(folder / "p3/1.jpg", folder / f"p3/more{number}.jpg")

    def start(out: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    begin = time.monotonic()
    assert start("whole").wait() == 0
    took = time.monotonic() - begin
    draw, killed = random.Random(0), 0
    for _ in range(10):
        process = start("out")
        time.sleep(draw.uniform(0, took / 4))  # less than the whole, as each continues
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed > 2
    assert start("out").wait() == 0
    whole = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert whole == sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*"))
    for name in whole:
        assert sha256(tmp_path / "whole" / name) == sha256(tmp_path / "out" / name), name
