"""Shards of a changing set: only what changed is written again, and a killed run leaves no trace."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import beton
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig
from fra.data.shards.plan import plan, shuffle_ranks
from fra.files import sha256

CONFIG = ShardConfig(images_per_shard=10, workers=2)
IMAGES = 43


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=90)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for number in range(IMAGES):
        picture(tmp_path / "faces" / f"{number}.jpg", number)
    (tmp_path / "faces" / "words.jpg").write_text("no image")
    return tmp_path / "faces"


def write(faces: Path, out: Path, **options: object) -> pd.DataFrame:
    records = ingest(DatasetConfig("faces", "folder", str(faces)), out / "raw")
    return shards.write(
        records,
        faces,
        out / "shards",
        out / "manifest.parquet",
        CONFIG,
        out / "state",
        **options,  # type: ignore[arg-type]
    )


def write_until(access: int, faces: Path, out: Path) -> None:
    """Write the shards; kill the process, or one of its workers, at its n-th access to a file."""
    accesses = itertools.count(1)

    def kill(event: str, _: object) -> None:
        if event in ("open", "os.rename", "os.remove") and next(accesses) == access:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    write(faces, out)


def written(out: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of each tar."""
    return {path.name: (sha256(path), path.stat().st_mtime_ns) for path in (out / "shards").glob("*.tar")}


def touched(before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_nothing_new_writes_nothing(faces: Path, tmp_path: Path) -> None:
    first = write(faces, tmp_path / "out")
    before, manifest = written(tmp_path / "out"), sha256(tmp_path / "out/manifest.parquet")
    second = write(faces, tmp_path / "out")
    assert len(before) == 5
    assert not touched(before, written(tmp_path / "out"))
    assert manifest == sha256(tmp_path / "out/manifest.parquet")
    pd.testing.assert_frame_equal(first, second)


def test_new_images_fill_the_last_shard_and_make_new_ones(faces: Path, tmp_path: Path) -> None:
    write(faces, tmp_path / "out")
    before = written(tmp_path / "out")
    for number in range(12):
        picture(faces / f"new{number}.jpg", 1000 + number)
    table = write(faces, tmp_path / "out")
    assert touched(before, written(tmp_path / "out")) == {"train-000004.tar", "train-000005.tar"}
    assert table["shard"].notna().sum() == IMAGES + 12
    assert table.groupby("shard").size().max() == 10


def test_every_shard_is_sorted_by_the_hashes_of_its_keys_whatever_existed_before() -> None:
    keys = pd.Series([f"{number}" for number in range(40)], dtype="string")
    records = pd.DataFrame({"key": keys, "split": ["train"] * 30 + ["test"] * 10})
    before, shard_before = keys[:0], pd.Series(dtype="string")
    for rows in (records.iloc[5:20], records.iloc[5:37], records):
        planned = plan(rows.assign(last=shards.rows_of(rows["key"], before)), 8, shard_before)
        for _, within in planned.groupby("shard"):
            order = shuffle_ranks(within["key"])
            assert (order[1:] > order[:-1]).all()
        assert planned.set_index("key")["shard"][before].tolist() == shard_before.tolist()
        before, shard_before = (planned[name].reset_index(drop=True) for name in ("key", "shard"))


def test_a_changed_image_rewrites_its_shard_alone(faces: Path, tmp_path: Path) -> None:
    first = write(faces, tmp_path / "out").set_index("key")
    before = written(tmp_path / "out")
    picture(faces / "7.jpg", 999)
    second = write(faces, tmp_path / "out").set_index("key")
    assert touched(before, written(tmp_path / "out")) == {first.loc["7", "shard"]}
    assert second.loc["7", "sha256"] == sha256(faces / "7.jpg") != first.loc["7", "sha256"]


def test_a_removed_image_rewrites_its_shard_alone(faces: Path, tmp_path: Path) -> None:
    first = write(faces, tmp_path / "out").set_index("key")
    before = written(tmp_path / "out")
    (faces / "7.jpg").unlink()
    second = write(faces, tmp_path / "out")
    assert touched(before, written(tmp_path / "out")) == {first.loc["7", "shard"]}
    assert sorted(second.loc[second["index"] >= 0, "index"]) == list(range(IMAGES - 1))


def test_an_image_that_is_repaired_is_included(faces: Path, tmp_path: Path) -> None:
    assert write(faces, tmp_path / "out").set_index("key").loc["words", "index"] == -1
    picture(faces / "words.jpg", 5)
    row = write(faces, tmp_path / "out").set_index("key").loc["words"]
    assert row["index"] >= 0
    assert pd.isna(row["error"])


def test_without_the_state_folder_the_same_bytes_are_written(faces: Path, tmp_path: Path) -> None:
    write(faces, tmp_path / "out")
    picture(faces / "more.jpg", 77)
    write(faces, tmp_path / "out")
    hashes = {name: content for name, (content, _) in written(tmp_path / "out").items()}
    shutil.rmtree(tmp_path / "out/state")
    write(faces, tmp_path / "out")
    assert {name: content for name, (content, _) in written(tmp_path / "out").items()} == hashes


def test_a_shard_that_was_changed_on_disk_is_written_again(faces: Path, tmp_path: Path) -> None:
    write(faces, tmp_path / "out")
    hashes = {name: content for name, (content, _) in written(tmp_path / "out").items()}
    victim = tmp_path / "out/shards/train-000002.tar"
    victim.write_bytes(victim.read_bytes()[:-1024])
    write(faces, tmp_path / "out")
    assert {name: content for name, (content, _) in written(tmp_path / "out").items()} == hashes


def test_an_image_that_fails_to_decode_is_removed_from_shards_and_betons(faces: Path, tmp_path: Path) -> None:
    whole = (faces / "7.jpg").read_bytes()
    tables = whole.index(b"\xff\xc4") + 5
    (faces / "7.jpg").write_bytes(
        whole[:tables] + b"\xff" * 16 + whole[tables + 16 :]
    )  # no such Huffman codes
    out = tmp_path / "out"
    manifest = write(faces, out)
    assert manifest.set_index("key").loc["7", "index"] >= 0
    broken = beton.write(manifest, out / "shards", out / "beton", CONFIG)
    assert set(broken) == {"7"}
    manifest = write(faces, out, broken=broken)
    row = manifest.set_index("key").loc["7"]
    assert (row["index"], row["width"], row["error"]) == (-1, 0, broken["7"])
    assert not beton.write(manifest, out / "shards", out / "beton", CONFIG)
    before = written(out)
    pd.testing.assert_frame_equal(write(faces, out), manifest)  # nothing changes in a further run
    assert not touched(before, written(out))


def test_a_run_killed_at_any_moment_continues_to_the_same_bytes(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    for number in range(IMAGES):
        picture(faces / f"{number}.jpg", number)
    write(faces, tmp_path / "whole")
    for number in range(100):
        picture(faces / f"new{number}.jpg", 100 + number)
    picture(faces / "3.jpg", 999)
    (faces / "4.jpg").unlink()
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    write(faces, tmp_path / "whole")
    draw = random.Random(0)
    killed = 0
    for _ in range(10):
        process = multiprocessing.get_context("fork").Process(
            target=write_until, args=(draw.randrange(1, 70), faces, tmp_path / "out")
        )
        process.start()
        process.join()
        killed += process.exitcode != 0
    assert killed > 2
    write(faces, tmp_path / "out")
    for name in ("shards", "manifest.parquet"):
        files = [tmp_path / "whole" / name, *(tmp_path / "whole" / name).rglob("*")]
        for file in files:
            if file.is_file():
                assert sha256(file) == sha256(tmp_path / "out" / file.relative_to(tmp_path / "whole")), file
    assert {path.name for path in (tmp_path / "whole/shards").iterdir()} == {
        path.name for path in (tmp_path / "out/shards").iterdir()
    }
