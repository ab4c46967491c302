"""A folder of videos through the stages that DVC runs: frames in data/raw, shards, lineage, withdrawal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.videos import moving_face, write_video
from support.workspace import make_workspace, run

from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from pipelines.lineage.impact import impact
from pipelines.project.permissions import source_files


def repro(workspace: Path) -> str:
    done = run(workspace, "dvc", "repro", "-s", "-f", "ingest")
    assert done.returncode == 0, done.stdout
    sharded = run(workspace, "dvc", "repro", "-s", "shard")
    assert sharded.returncode == 0, sharded.stdout
    return done.stdout


def test_frames_are_as_restricted_as_their_video(tmp_path: Path) -> None:
    write_video(tmp_path / "set/p0/clip.mp4", moving_face(5))
    config = DatasetConfig("mine", "folder", str(tmp_path / "set"), frames_per_second=1)
    records = ingest(config, tmp_path / "raw")
    files = source_files(tmp_path / "set", records)
    assert files == [str(tmp_path / "set/p0/clip.mp4")], "the video, and not this project's tar of frames"


@pytest.mark.slow
def test_videos_become_frames_in_shards(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for person in range(3):
        write_video(videos / f"p{person}/clip.mp4", moving_face(30, person, seed=person))
    options = (f"dataset.root={videos}", "dataset.frames_per_second=2", "dataset.faces=detect")
    workspace = make_workspace(tmp_path / "workspace", "dataset=folder", "dataset.name=mine", *options)
    first = repro(workspace)
    assert "18 frames of 3 videos; 0 near-identical frames dropped" in first
    assert "faces in 18 frames of 3 videos" in first
    raw, manifest = workspace / "data/raw/mine", workspace / "data/manifest/mine.parquet"
    records = pd.read_parquet(raw / "records.parquet")
    assert records["source"].str.startswith("data/raw/mine/videos/").all(), "no path of this machine"
    assert len(list((raw / "videos").glob("*.tar"))) == 3
    key = "p1/clip.mp4/00001000"
    row = pd.read_parquet(manifest).set_index("key").loc[key]
    assert (row["source"], row["photo.seconds"], row["shard"]) == ("p1/clip.mp4", 1.0, "train-000000.tar")
    found = impact("key", key, workspace)["datasets"]["mine"]
    assert (found["images"], found["shards"]) == ([key], ["data/shards/mine/train-000000.tar"])
    whole = impact("key", "p1/clip.mp4", workspace)["datasets"]["mine"]
    assert whole["images"] == [f"p1/clip.mp4/{500 * number:08d}" for number in range(6)]

    tars = workspace / ".work/frames/mine/tars"
    written = {tar.name: tar.stat().st_mtime_ns for tar in tars.glob("*.tar")}
    before = {file.name: file.read_bytes() for file in (raw / "videos").iterdir()}
    table = (raw / "records.parquet").read_bytes()
    shutil.rmtree(raw)  # as DVC does before each run
    repro(workspace)
    assert {file.name: file.read_bytes() for file in (raw / "videos").iterdir()} == before
    assert (raw / "records.parquet").read_bytes() == table
    assert {tar.name: tar.stat().st_mtime_ns for tar in tars.glob("*.tar")} == written, "nothing decoded"

    record = {"person": "p1", "dataset": "mine", "signed_off_by": "A", "date": "2026-01-01", "stale": {}}
    (workspace / "data/withdrawn/mine").mkdir(parents=True)
    (workspace / "data/withdrawn/mine/p1.json").write_text(json.dumps(record))
    repro(workspace)
    assert len(list((raw / "videos").glob("*.tar"))) == 2
    assert len(list(tars.glob("*.tar"))) == 2
    assert "p1" not in (raw / "videos/videos.csv").read_text()
    assert not (pd.read_parquet(manifest)["person"] == "p1").any()
