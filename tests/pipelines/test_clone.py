"""A colleague's clone with a DVC remote: every result comes from the remote, and no stage runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.workspace import run

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True)


def dvc(folder: Path, *arguments: str) -> str:
    done = run(folder, "dvc", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def shared(finished: Path, tmp_path: Path) -> Path:
    """A finished project in git whose results, with DVC's run cache, are in a remote."""
    project = tmp_path / "project"
    shutil.copytree(
        finished, project, copy_function=os.link, ignore=shutil.ignore_patterns("__pycache__", "config")
    )
    (project / ".dvc/config").write_text(
        "[core]\n    analytics = false\n    check_update = false\n    remote = shared\n"
        f"['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n"
    )
    ignored = [
        "data/raw",
        "data/shards",
        "data/beton",
        "data/manifest",
        "artifacts",
        ".work",
        ".dvc/cache",
        ".dvc/tmp",
    ]
    (project / ".gitignore").write_text("".join(f"/{name}/\n" for name in ignored) + "__pycache__/\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "A finished run")
    dvc(project, "push", "--run-cache")
    return project


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["committed", "missing"])
def test_a_clone_runs_no_stage(shared: Path, tmp_path: Path, lock: str) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(shared), str(clone))
    if lock == "committed":
        dvc(clone, "pull")
    else:  # the results are found by what the stages would read, in the run cache alone
        (clone / "dvc.lock").unlink()
        dvc(clone, "fetch", "--run-cache")
    output = dvc(clone, "repro", "--pull")
    assert "Running stage" not in output
    if lock == "missing":
        assert output.count("is cached - skipping run") == len(
            list((shared / "artifacts/lineage").glob("*.json"))
        )
    for name in (
        "data/shards/orl/index.json",
        "artifacts/pretrain/backbone.safetensors",
        "artifacts/results.json",
    ):
        assert (clone / name).read_bytes() == (shared / name).read_bytes()
    assert "up to date" in dvc(clone, "status")


@pytest.mark.slow
def test_shards_of_a_clone_are_continued(shared: Path, tmp_path: Path) -> None:
    """Without the folder of state, images stay in the shards that the last manifest has them in."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(shared), str(clone))
    dvc(clone, "pull")
    dvc(clone, "repro", "--force", "--single-item", "shard")
    for name in ("data/shards/orl/train-000000.tar", "data/manifest/orl.parquet"):
        assert (clone / name).read_bytes() == (shared / name).read_bytes()


@pytest.mark.slow
def test_a_new_run_of_shard_rewrites_no_shard(finished: Path, tmp_path: Path) -> None:
    """DVC deletes the outputs before the stage runs; the stage links them again from its folder of state."""
    workspace = tmp_path / "workspace"
    shutil.copytree(finished, workspace, copy_function=os.link)
    state = workspace / ".work/shards/orl/tars"
    before = {file.name: file.stat().st_ino for file in state.glob("*.tar")}
    assert before
    dvc(workspace, "repro", "--force", "--single-item", "shard")
    assert {file.name: file.stat().st_ino for file in state.glob("*.tar")} == before
    for name in before:
        shard = workspace / "data/shards/orl" / name
        assert shard.read_bytes() == (finished / "data/shards/orl" / name).read_bytes()
