"""A stage's command line: it teaches, takes what it should and nothing else, and says what its machine lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.workspace import run

READ_ONLY = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'


def stage(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"pipelines.{name}", *arguments)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (stage("ingest", "--help"), "a key of `benchmarks`"),
        (stage("params", "--help"), "group=choice, or section.name=value"),
    ],
)
def test_help_teaches(workspace: Path, command: tuple[str, ...], says: str) -> None:
    done = run(workspace, *command)
    assert done.returncode == 0, done.stdout
    assert says in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (stage("ingest", "orl", "--force"), "unrecognized arguments: --force"),
        (stage("transfer"), "required: TASK"),
        (stage("params", "-S", "train.lr=1"), "unrecognized arguments: -S"),
    ],
)
def test_other_arguments_are_refused(workspace: Path, command: tuple[str, ...], says: str) -> None:
    before = (workspace / "params.yaml").read_bytes()
    done = run(workspace, *command)
    assert done.returncode == 2
    assert says in done.stdout
    assert (workspace / "params.yaml").read_bytes() == before


def test_where_processes_cannot_share_locks_the_folder_is_named(workspace: Path) -> None:
    alone = ("unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    done = run(workspace, *alone, *stage("shard"))
    assert done.returncode == 1
    assert "error: shard: /dev/shm: Read-only file system: processes keep the locks" in done.stdout
