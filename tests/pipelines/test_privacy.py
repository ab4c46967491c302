"""Outputs of the pipeline do not contain names of the machine, its user or secrets, and nothing is sent."""

from __future__ import annotations

import re
import shutil
import socket
import stat
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.workspace import HOST, SECRET, USER, few_faces, make_workspace, may_unshare, observed, run

from pipelines.project import permissions

MADE = ("artifacts", "data/raw", "data/shards", "data/beton", "data/manifest", ".work/openlineage")


def artifacts(workspace: Path) -> list[Path]:
    return [path for name in MADE for path in (workspace / name).rglob("*") if path.is_file()]


def contents(path: Path) -> bytes:
    """Returns a file's bytes; of a parquet file, which is compressed, also its values."""
    raw = path.read_bytes()
    if path.suffix != ".parquet":
        return raw
    table = pq.read_table(path)
    return raw + repr((table.schema, table.to_pydict())).encode("utf-8", "replace")


def containing(workspace: Path, secrets: dict[str, str]) -> set[str]:
    """Returns which artifacts contain which of these texts."""
    found = artifacts(workspace)
    assert len(found) > 40
    words = {what: word.encode() for what, word in secrets.items()}
    return {
        f"{path.relative_to(workspace)} contains {what}"
        for path in found
        for what, word in words.items()
        if word in contents(path)
    }


def test_artifacts_do_not_contain_names_of_user_host_or_folders(finished: Path) -> None:
    names = {
        "the folder of the raw data": f"{finished.parent}",
        "the home folder": f"{Path.home()}/",
        "the folder of Python": sys.prefix,
        "the project's folder": f"{Path(__file__).parents[2]}/",
        "the user's name": USER,
        "the host's name": HOST if may_unshare() else socket.gethostname(),
    }
    assert not containing(finished, names)


def test_artifacts_do_not_contain_secrets_of_the_environment(finished: Path) -> None:
    assert not containing(finished, {"a secret": SECRET})
    for name in ("log.txt", "params.yaml", "dvc.lock"):
        assert SECRET not in (finished / name).read_text()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_pipeline_sends_nothing(finished: Path) -> None:
    """The trace contains the system calls of every process that send something."""
    calls = (finished.parent / "sent.txt").read_text().splitlines()
    assert calls, "the trace contains at least how processes end"
    assert [line for line in calls if re.search(r"AF_INET|AF_PACKET|AF_VSOCK", line)] == []


def test_trace_contains_a_request_of_the_network(tmp_path: Path) -> None:
    program = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
    run(tmp_path, *observed(tmp_path / "sent.txt"), sys.executable, "-c", program)
    if shutil.which("strace"):
        assert "AF_INET" in (tmp_path / "sent.txt").read_text()


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.rglob("*")}


@pytest.mark.slow
def test_outputs_are_as_restricted_as_the_images(tmp_path: Path) -> None:
    faces = few_faces(tmp_path / "faces")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    make_workspace(workspace, "dataset=folder", f"dataset.root={faces}")
    (faces / "s1").chmod(0o700)
    for stage in ("ingest", "shard"):
        done = run(workspace, sys.executable, "-m", f"pipelines.{stage}")
        assert done.returncode == 0, done.stdout
    for folder in (
        "data/raw",
        "data/shards",
        "data/beton",
        "data/manifest",
        "artifacts",
        ".work",
        ".dvc/cache",
    ):
        assert stat.S_IMODE((workspace / folder).stat().st_mode) & 0o077 == 0
    for folder in ("data/shards", "data/beton", "data/manifest"):
        assert modes(workspace / folder) == {0}


@pytest.mark.parametrize(
    ("folder", "file", "denied"),
    [
        (0o755, 0o644, 0),
        (0o755, 0o640, 0o007),
        (0o750, 0o644, 0o007),
        (0o700, 0o644, 0o077),
        (0o711, 0o600, 0o077),
    ],
)
def test_denied_bits_follow_folder_and_file(folder: int, file: int, denied: int, tmp_path: Path) -> None:
    inside = tmp_path / "s1"
    inside.mkdir()
    (inside / "1.pgm").touch(file)
    (inside / "1.pgm").chmod(file)
    inside.chmod(folder)
    assert permissions.denied_bits([str(inside)], [str(inside / "1.pgm")]) == denied
