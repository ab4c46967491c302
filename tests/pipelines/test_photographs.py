"""Photographs through the whole chain: crops, their lineage, and the withdrawal of a person."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.photographs import write_photographs
from support.workspace import make_workspace, run

from fra.data.images import members

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
