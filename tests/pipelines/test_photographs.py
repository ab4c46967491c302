"""Photographs through the whole chain: crops, their lineage, and the withdrawal of a person."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.photographs import write_photographs
from support.workspace import environment, make_workspace, run

from fra.data.images import members
from fra.files import sha256

DVC = (sys.executable, "-m", "dvc")
FRA = (sys.executable, "-m", "pipelines.cli")


@pytest.mark.slow
def test_a_photograph_with_three_faces_goes_through_the_chain_and_is_withdrawn(tmp_path: Path) -> None:
    photos = write_photographs(tmp_path / "My Photos", people=8, each=6)
    place = make_workspace(
        tmp_path / "work",
        "dataset=folder",
        "dataset.name=mine",
        f"dataset.root={photos}",
        "dataset.faces=detect",
        "faces.size=112",
        "validate.max_quarantined=0.1",
    )
    done = run(place, *DVC, "repro")
    assert done.returncode == 0, done.stdout

    manifest = pd.read_parquet(place / "data/manifest/mine.parquet")
    group = manifest[manifest["source"] == "p0/group.jpg"]
    assert sorted(group["key"]) == [f"p0/group_face{number}" for number in range(3)]
    digest = hashlib.sha256((photos / "p0/group.jpg").read_bytes()).hexdigest()
    assert set(group["photo.sha256"]) == {digest}

    for name in (str(photos / "p0/group.jpg"), "p0/group.jpg"):
        answer = json.loads(run(place, *FRA, "lineage", "who", "--image", name).stdout)
        found = answer["datasets"]["mine"]
        assert found["images"] == sorted(group["key"])
        assert {"ingest", "shard", "validate", "pretrain", "transfer@expression", "report"} <= set(
            found["stages"]
        )

    again = run(place, *DVC, "repro", "-f", "-s", "ingest")
    assert again.returncode == 0, again.stdout
    assert "faces: 100%" in again.stdout
    assert "dvc.lock" not in run(place, *DVC, "status").stdout

    withdrawn = run(place, *FRA, "data", "withdraw", "--subject", "p0", "--by", "A. Officer")
    assert withdrawn.returncode == 0, withdrawn.stdout
    after = pd.read_parquet(place / "data/manifest/mine.parquet")
    assert len(after) == len(manifest) - 6 - 3
    assert digest not in set(after["photo.sha256"])
    keys = set(manifest.loc[manifest["person"] == "p0", "key"])
    for shard in (place / "data/shards/mine").glob("*.tar"):
        assert not list(members(shard, keys)), shard
    for table in place.glob(".work/faces/mine/*/*.parquet"):
        assert digest not in set(pd.read_parquet(table)["sha256"]), "the search remembers nobody who withdrew"


OUTPUTS = ("data/raw/mine", "data/shards/mine", "data/beton/mine", "data/manifest/mine.parquet")


def start_sharding(place: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*DVC, "repro", "shard"],
        cwd=place,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def outputs(place: Path) -> dict[str, str]:
    """All files of the stages ingest and shard with their SHA-256."""
    found = [
        path for name in OUTPUTS for path in ((place / name), *(place / name).rglob("*")) if path.is_file()
    ]
    return {str(path.relative_to(place)): sha256(path) for path in found}


@pytest.mark.slow
def test_kills_at_random_moments_give_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    """SIGKILL to DVC with its stage, or to DVC alone, whose stage then continues while the next DVC starts."""
    photos = write_photographs(tmp_path / "photos", people=8, each=6)
    options = (f"dataset.root={photos}", "dataset.faces=detect", "shard.workers=2")
    places = [
        make_workspace(tmp_path / name, "dataset=folder", "dataset.name=mine", *options)
        for name in ("a", "b")
    ]
    begin = time.monotonic()
    assert start_sharding(places[0]).wait() == 0
    duration = time.monotonic() - begin
    generator, killed = np.random.default_rng(0), 0
    for number in range(10):
        process = start_sharding(places[1])
        time.sleep(generator.uniform(0.2, 1) * duration)
        if process.poll() is None:
            killed += 1
            if number % 2:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert killed > 2
    assert start_sharding(places[1]).wait() == 0
    assert len(outputs(places[0])) == 5
    assert outputs(places[1]) == outputs(places[0])
