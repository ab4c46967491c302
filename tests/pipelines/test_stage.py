"""The command line of a stage: help, refused arguments, and errors of the machine it runs on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.serving import Toy, receiver
from support.workspace import run

READ_ONLY = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'


def stage(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"pipelines.{name}", *arguments)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (stage("ingest", "--help"), "a key of `benchmarks`"),
        pytest.param(stage("params", "--help"), "or SECTION.NAME=VALUE", marks=pytest.mark.slow),
    ],
)
def test_help_names_the_arguments(workspace: Path, command: tuple[str, ...], text: str) -> None:
    done = run(workspace, *command)
    assert done.returncode == 0, done.stdout
    assert text in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (stage("ingest", "orl", "--force"), "unrecognized arguments: --force"),
        pytest.param(stage("transfer"), "required: TASK", marks=pytest.mark.slow),
        pytest.param(
            stage("params", "-S", "train.lr=1"), "unrecognized arguments: -S", marks=pytest.mark.slow
        ),
    ],
)
def test_unknown_arguments_are_refused(workspace: Path, command: tuple[str, ...], text: str) -> None:
    before = (workspace / "params.yaml").read_bytes()
    done = run(workspace, *command)
    assert done.returncode == 2
    assert text in done.stdout
    assert (workspace / "params.yaml").read_bytes() == before


def test_stage_runs_if_something_else_answers_at_the_servers_address(toy: Toy) -> None:
    """Such as the pages of the interface, if `/api` is missing, or another program on that port."""
    with receiver() as (address, _):
        done = run(toy.folder, sys.executable, "toy_stage.py", "ingest", "plain", PREFECT_API_URL=address)
    assert done.returncode == 0, done.stdout
    assert "the stage runs without the Prefect server" in done.stdout
    assert toy.starts("ingest") == 1


@pytest.mark.slow
def test_missing_shared_memory_is_reported_with_its_folder(workspace: Path) -> None:
    isolated = ("unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh")
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    done = run(workspace, *isolated, *stage("shard"))
    assert done.returncode == 1
    assert "error: shard: /dev/shm: Read-only file system: processes keep the locks" in done.stdout
