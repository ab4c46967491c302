"""Withdrawal of a person: what it deletes, what it lists, and when artifacts are stale."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from support.workspace import run, run_fra

from fra.data.datasets.key_lists import LEFT_OUT, write_left_out
from pipelines.lineage.checks.people import stale
from pipelines.lineage.impact import impact
from pipelines.lineage.verify import verify
from pipelines.lineage.withdraw import delete_caches, file_name, leftovers, withdraw
from pipelines.project.dataset import read_withdrawal, withdrawn_people
from pipelines.repo.hashes import Hashes, md5
from pipelines.repo.lock import LineageError, Stage, read


def command(workspace: Path, person: str, by: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run_fra(workspace, "data", "withdraw", "--subject", person, "--by", by, *options)


@pytest.mark.slow
def test_a_withdrawal_removes_the_person_and_marks_artifacts_as_stale(workspace: Path) -> None:
    before = pd.read_parquet(workspace / "data/manifest/orl.parquet")
    theirs = set(before.loc[before["person"] == "s14", "sha256"])  # a person of the test split
    assert len(theirs) == 4
    kept = {
        name: (workspace / "data/shards/orl" / f"{name}-000000.tar").read_bytes() for name in ("train", "val")
    }
    stale = {out for stage in read(workspace).values() for out in stage.outs}
    done = command(workspace, "s14", "A. Officer")
    assert done.returncode == 0, done.stdout
    assert all(f"stale: {path}" in done.stdout for path in stale)
    record = json.loads((workspace / "data/withdrawn/orl/s14.json").read_text())
    assert (record["person"], record["signed_off_by"], record["images"]) == ("s14", "A. Officer", 4)
    assert set(record["stale"]) == stale
    after = pd.read_parquet(workspace / "data/manifest/orl.parquet")
    assert len(after) == len(before) - 4
    manifest = (workspace / "data/manifest/orl.parquet").read_bytes()
    assert not any(digest.encode() in manifest for digest in theirs)
    assert not theirs & set(after["sha256"])
    for name, content in kept.items():  # only the shard that they were in has changed
        assert (workspace / "data/shards/orl" / f"{name}-000000.tar").read_bytes() == content
    named = {problem.subject for problem in verify(workspace).problems if "stale" in problem.message}
    assert "artifacts/transfer/alignment/metrics.json" in named
    assert "data/manifest/orl.parquet" not in named, "it was made without the person"
    assert not list((workspace / ".work/features").glob("*")), "features of the person"
    assert "deleted: .work/features/" in done.stdout


@pytest.mark.slow
def test_after_a_withdrawal_and_a_new_run_everything_verifies(workspace: Path) -> None:
    """The quarantine list is the same with and without the person, which does not make it stale."""
    before = (workspace / "artifacts/validation/quarantine.csv").read_bytes()
    assert command(workspace, "s14", "A. Officer").returncode == 0
    done = run(workspace, "dvc", "repro")
    assert done.returncode == 0, done.stdout
    assert (workspace / "artifacts/validation/quarantine.csv").read_bytes() == before
    assert verify(workspace).problems == []
    assert not [path for path in workspace.rglob("s14") if path.is_dir()]


def test_a_second_withdrawal_says_when_the_first_was(workspace: Path) -> None:
    assert command(workspace, "s3", "A. Officer", "--no-run").returncode == 0
    before = (workspace / "data/withdrawn/orl/s3.json").read_bytes()
    done = command(workspace, "s3", "B. Officer", "--no-run")
    assert done.returncode == 1
    assert done.stdout.startswith("error: s3 is already withdrawn, from orl on ")
    assert "by A. Officer" in done.stdout
    assert (workspace / "data/withdrawn/orl/s3.json").read_bytes() == before


def test_a_person_whose_images_are_all_left_out_can_be_withdrawn(tmp_path: Path) -> None:
    """Lists of keys take them out of the manifest, but their photographs are still in the raw folder."""
    manifest = tmp_path / "data/manifest/orl.parquet"
    manifest.parent.mkdir(parents=True)
    rows = {"key": ["s3/1"], "person": ["s3"], "source": ["s3/1.png"]}
    kept = pd.DataFrame(
        rows | {"split": ["train"], "shard": ["train-000000.tar"], "index": [0], "sha256": ["0"]}
    )
    kept.to_parquet(manifest)
    left_out = pd.DataFrame(
        {name: [values[0].replace("s3", "s50"), values[0] + "x"] for name, values in rows.items()}
    )
    left_out["person"] = ["s50", "s3"]
    write_left_out(left_out, tmp_path / "data/raw/orl" / LEFT_OUT)
    outs = {"ingest": "data/raw/orl", "shard": "data/manifest/orl.parquet"}
    reads = {"ingest": "data/withdrawn", "shard": "data/raw/orl"}
    stages = {
        name: {
            "cmd": name,
            "deps": [{"path": reads[name], "md5": "1"}],
            "outs": [{"path": outs[name], "md5": "2"}],
        }
        for name in outs
    }
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": stages}))
    found = impact("person", "s50", tmp_path)["datasets"]["orl"]
    assert (found["images"], found["left_out"], found["stages"]) == (["s50/1"], ["s50/1"], ["ingest"])
    assert found["artifacts"] == {"data/raw/orl": "2"}
    assert (found["betons"], found["shards"]) == ([], [])
    partly = impact("person", "s3", tmp_path)["datasets"]["orl"]
    assert (partly["images"], partly["left_out"]) == (["s3/1", "s3/1x"], ["s3/1x"])
    assert set(partly["artifacts"]) == set(outs.values())
    record = read_withdrawal(withdraw("s50", "A. Officer", tmp_path)[0])
    assert (record["images"], record["stale"]) == (1, {"data/raw/orl": "2"})


@pytest.mark.parametrize("by", ["", "  "])
def test_a_withdrawal_needs_a_name(finished: Path, by: str) -> None:
    with pytest.raises(LineageError, match="--by is empty"):
        withdraw("s3", by, finished)


def test_caches_are_deleted_and_the_rest_is_listed(workspace: Path) -> None:
    for name in (
        ".work/features/features-0.npy",
        ".work/checkpoints/run/step-1.pt",
        ".dvc/tmp/exps/tmpabc/dvc.lock",
        ".dvc/tmp/exps/celery/broker/in/1",
        "artifacts/compare.html",
    ):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text("")
    record = read_withdrawal(withdraw("s3", "A. Officer", workspace)[0])
    assert {".work/features/features-0.npy", ".work/checkpoints/run"} <= set(delete_caches(workspace))
    assert not list((workspace / ".work/features").iterdir())
    assert not list((workspace / ".work/checkpoints").iterdir())
    found = "\n".join(leftovers(record, workspace))
    for expected in (
        ".dvc/tmp/exps/tmpabc: the folder of an experiment",
        "`dvc queue remove --all`",
        "artifacts/compare.html: made by no stage",
        "`dvc gc --workspace`",
        "faces: your own images, which are never changed",
    ):
        assert expected in found


def test_records_of_two_people_do_not_share_a_file() -> None:
    assert file_name("s14") == "s14.json"
    assert file_name("a/b") != file_name("a_b") == "a_b.json"
    assert file_name("a/b") != file_name("a b")


def test_a_malformed_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ingest` must not list a set while it cannot read who was withdrawn."""
    monkeypatch.chdir(tmp_path)
    file = Path("data/withdrawn/orl/s1.json")
    file.parent.mkdir(parents=True)
    for content in ("{}", "[]", "{", '{"person": 1}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"s1\.json: not a withdrawal record"):
            withdrawn_people("orl")


class Chain:
    """A lock of ingest → shard → validate → pretrain on real files, of which each stage can run again."""

    STAGES: ClassVar[dict[str, tuple[list[str], list[str]]]] = {
        "ingest": (["data/withdrawn"], ["data/raw/orl"]),
        "shard": (["data/raw/orl"], ["data/manifest/orl.parquet"]),
        "validate": (["data/manifest/orl.parquet"], ["quarantine.csv", "verdict.json"]),
        "pretrain": (["quarantine.csv", "verdict.json"], ["backbone"]),
    }

    def __init__(self, root: Path) -> None:
        self.root, self.stages = root, dict[str, Stage]()
        for name in ("data/withdrawn", "data/raw", "data/manifest"):
            (root / name).mkdir(parents=True)
        (root / "data/withdrawn/x").write_text("")
        self.run("with", *self.STAGES)

    def run(self, people: str, *names: str) -> None:
        """Runs stages: every output but quarantine.csv depends on who is in the data."""
        for name in names:
            deps, outs = self.STAGES[name]
            for out in outs:
                (self.root / out).write_text("header" if out == "quarantine.csv" else f"{out} {people}")
            hashes = Hashes(self.root)
            digests = [{path: str(hashes.of(path)) for path in paths} for paths in (deps, outs)]
            self.stages[name] = Stage(name, name, {}, digests[0], digests[1], {})

    def stale(self, record: dict[str, Any]) -> list[str]:
        return stale(record, self.stages, Hashes(self.root))


def test_an_artifact_is_stale_until_its_stage_ran_without_the_person(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    outs = {out: digest for stage in chain.stages.values() for out, digest in stage.outs.items()}
    record = {"dataset": "orl", "stale": outs}
    assert set(chain.stale(record)) == set(outs)
    (tmp_path / "data/withdrawn/s14.json").write_text("")
    assert set(chain.stale(record)) == set(outs)
    chain.run("without", "ingest", "shard")
    assert set(chain.stale(record)) == {"quarantine.csv", "verdict.json", "backbone"}
    chain.run("without", "validate")
    assert md5(tmp_path / "quarantine.csv") == outs["quarantine.csv"]
    assert chain.stale(record) == ["backbone"]
    chain.run("without", "pretrain")
    assert chain.stale(record) == []
