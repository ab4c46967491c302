"""A list of keys in the chain: an edit runs the data stages again, and its hash is in the lineage."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from support.workspace import make_workspace, run, run_fra

from fra.data.datasets.key_lists import LEFT_OUT
from pipelines.repo.hashes import md5
from pipelines.sections import ParamsError, check_lists, key_lists

DVC = (sys.executable, "-m", "dvc")
MANIFEST = "data/manifest/orl.parquet"


def test_stages_depend_on_the_lists_of_their_data_set() -> None:
    found = key_lists({"only": "mine.txt", "exclude": None}, {"orl": {"exclude": "other.txt"}})
    assert found == {
        "dataset": {"only": "mine.txt", "exclude": "data/withdrawn"},
        "benchmarks": {"orl": {"only": "data/withdrawn", "exclude": "other.txt"}},
    }


def test_a_missing_list_is_named_with_its_parameter_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    there, missing = {"only": str(tmp_path / "mine.txt"), "exclude": None}, {"exclude": "no.txt"}
    check_lists(there, {"orl": there})
    for arguments, named in (((missing, {}), "dataset"), ((there, {"orl": missing}), "benchmarks.orl")):
        with pytest.raises(ParamsError, match=rf"^{named}\.exclude=no\.txt: no such list .*: write it"):
            check_lists(*arguments)


@pytest.mark.slow
def test_an_edited_list_changes_the_data_set_and_the_lineage(tmp_path: Path) -> None:
    rows = "".join(f"s1/{number},cluster 0\n" for number in range(1, 11))
    (tmp_path / "list.csv").write_text(f"key,cluster\n{rows}s2/3,cluster 1\n")
    place = make_workspace(tmp_path, "dataset.exclude=list.csv")
    (place / "list.csv").rename(place / "moved.csv")
    for entry in ([*DVC, "repro", "shard"], [sys.executable, "-m", "pipelines.run", "shard"]):
        missing = run(place, *entry)
        assert missing.returncode
        assert "list.csv" in missing.stdout
    assert "error: dataset.exclude=list.csv: no such list of keys" in missing.stdout
    (place / "moved.csv").rename(place / "list.csv")
    done = run(place, *DVC, "repro", "shard")
    assert done.returncode == 0, done.stdout
    assert "orl: exclude=list.csv: 389 of 400 images are left" in done.stdout
    assert not {"s1/1", "s2/3"} & set(pd.read_parquet(place / MANIFEST)["key"])
    shown = run_fra(place, "lineage", "show", MANIFEST).stdout
    assert f"read list.csv {md5(place / 'list.csv')}" in " ".join(shown.split())

    withdrawn = run_fra(place, "data", "withdraw", "--subject", "s1", "--by", "A. Officer", "--no-run").stdout
    assert "orl: 10 images of s1 withdrawn" in withdrawn, "all of them are left out by the list"
    assert "stale: data/raw/orl " in withdrawn
    assert "stale: data/shards/orl " not in withdrawn
    (place / "list.csv").write_text("key\ns2/4\n")
    done = run(place, *DVC, "repro", "shard")
    assert done.returncode == 0, done.stdout
    keys = pd.read_parquet(place / MANIFEST)["key"]
    assert (len(keys), keys.is_unique, "s2/3" in set(keys)) == (389, True, True)
    assert pd.read_parquet(place / "data/raw/orl" / LEFT_OUT)["key"].tolist() == ["s2/4"]
    assert not (place / "data/raw/orl/s1").exists()

    (place / "list.csv").write_text("key\nelsewhere/1\n")
    refused = run(place, *DVC, "repro", "shard")
    assert refused.returncode
    assert "none of its 1 key is in the data set, such as 'elsewhere/1'" in refused.stdout
    assert len(pd.read_parquet(place / MANIFEST)) == 389

    (place / "other.csv").write_text("key\ns2/4\n")
    params = (place / "params.yaml").read_text()
    (place / "params.yaml").write_text(params.replace("exclude: list.csv", "exclude: other.csv", 1))
    assert "key_lists must be" in run(place, *DVC, "repro", "shard").stdout
