"""Photographs through the whole chain: crops, their lineage, and the withdrawal of a person."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

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
    photos = write_photographs(tmp_path / "My Photos", people=6, each=3)
    place = make_workspace(
        tmp_path / "work",
        "dataset=folder",
        "dataset.name=mine",
        f"dataset.root={photos}",
        "dataset.faces=detect",
        "faces.size=112",
        "validate.max_quarantined=0.1",
    )
    done = run(place, *DVC, "repro", "pretrain")
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
        assert {"ingest", "shard", "validate", "pretrain"} <= set(found["stages"])

    again = run(place, *DVC, "repro", "-f", "-s", "ingest")
    assert again.returncode == 0, again.stdout
    assert "faces: 100%" in again.stdout
    assert "dvc.lock" not in run(place, *DVC, "status").stdout

    withdrawn = run(place, *FRA, "data", "withdraw", "--subject", "p0", "--by", "A. Officer")
    assert withdrawn.returncode == 0, withdrawn.stdout
    after = pd.read_parquet(place / "data/manifest/mine.parquet")
    assert len(after) == len(manifest) - 3 - 3
    assert digest not in set(after["photo.sha256"])
    keys = set(manifest.loc[manifest["person"] == "p0", "key"])
    for shard in (place / "data/shards/mine").glob("*.tar"):
        assert not list(members(shard, keys)), shard
    for table in place.glob(".work/faces/mine/*/*.parquet"):
        assert digest not in set(pd.read_parquet(table)["sha256"]), "the search remembers nobody who withdrew"


OUTPUTS = ("data/raw/mine", "data/shards/mine", "data/beton/mine", "data/manifest/mine.parquet")


ACCESSES = """
import atexit, itertools, os, signal, sys

STAGE, LIMIT, LOG = os.environ.get("DVC_STAGE"), int(os.environ["KILL_AT"]), os.environ["ACCESS_LOG"]
accesses = itertools.count(1)

def count(event, arguments):
    if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(("data/", ".work/", os.getcwd())):
        if next(accesses) == LIMIT:
            open(LOG, "a").write("killed\\n")
            if os.environ["KILL_ALL"] == "yes":
                os.killpg(os.getpgrp(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

if STAGE == os.environ["KILL_STAGE"]:
    if not LIMIT:
        atexit.register(lambda: open(LOG, "a").write(f"{next(accesses)}\\n"))
    sys.addaudithook(count)
"""
"""Loaded by each Python process: one of the named stage, or all with DVC, are killed at its n-th access to data."""


def shard(place: Path, stage: str = "shard", kill_at: int = 0, kill_all: bool = False) -> str:
    """Runs ingest and shard; returns what the stage logged: a line per kill, or how many files were accessed."""
    hook, log = place.parent / "hook", place.parent / "accesses.log"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(ACCESSES)
    log.write_text("")
    settings = {"PYTHONPATH": str(hook), "KILL_STAGE": stage, "ACCESS_LOG": str(log), "KILL_AT": str(kill_at)}
    process = subprocess.Popen(
        [*DVC, "repro", "-f", "shard"],
        cwd=place,
        env={**environment(), **settings, "KILL_ALL": "yes" if kill_all else "no"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    code, found = process.wait(), log.read_text()
    assert (code != 0) == ("killed" in found)
    return found


def outputs(place: Path) -> dict[str, str]:
    """All files of the stages ingest and shard with their SHA-256."""
    found = [
        path for name in OUTPUTS for path in ((place / name), *(place / name).rglob("*")) if path.is_file()
    ]
    return {str(path.relative_to(place)): sha256(path) for path in found}


@pytest.mark.slow
def test_kills_at_random_moments_give_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    """Ten times SIGKILL to one of the processes of a stage, or to DVC with its stage, at a random access to a file."""
    photos = write_photographs(tmp_path / "photos", people=3, each=3)
    options = (f"dataset.root={photos}", "dataset.faces=detect", "shard.workers=2")
    places = [
        make_workspace(tmp_path / name, "dataset=folder", "dataset.name=mine", *options)
        for name in ("a", "b")
    ]
    stages = ("ingest", "shard")
    most = {stage: max(map(int, shard(places[0], stage).split())) for stage in stages}
    draw, killed = random.Random(0), 0
    for number in range(20):
        stage = stages[number % 2]
        moment = int(most[stage] ** draw.random())  # later runs access fewer files
        killed += "killed" in shard(places[1], stage, moment, kill_all=number % 4 < 2)
        if killed == 10:
            break
    assert killed == 10
    shard(places[1])
    assert len(outputs(places[0])) == 5
    assert outputs(places[1]) == outputs(places[0])
