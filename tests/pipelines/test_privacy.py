"""What a finished chain tells about the people, the machine and its user, and to whom."""

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
    """A file's bytes; of a parquet file also its values, as they are compressed."""
    raw = path.read_bytes()
    if path.suffix != ".parquet":
        return raw
    table = pq.read_table(path)
    return raw + repr((table.schema, table.to_pydict())).encode("utf-8", "replace")


def saying(workspace: Path, tells: dict[str, str]) -> set[str]:
    """Which artifacts hold which of these words."""
    found = artifacts(workspace)
    assert len(found) > 40
    words = {what: word.encode() for what, word in tells.items()}
    return {
        f"{path.relative_to(workspace)} says {what}"
        for path in found
        for what, word in words.items()
        if word in contents(path)
    }


def test_artifacts_do_not_say_where_they_were_made_and_by_whom(finished: Path) -> None:
    tells = {
        "the folder of the raw data": f"{finished.parent}",
        "the home folder": f"{Path.home()}/",
        "the folder of Python": sys.prefix,
        "the project's folder": f"{Path(__file__).parents[2]}/",
        "the user's name": USER,
        "the host's name": HOST if may_unshare() else socket.gethostname(),
    }
    assert not saying(finished, tells)


def test_secrets_of_the_environment_get_nowhere(finished: Path) -> None:
    assert not saying(finished, {"a secret": SECRET})
    for name in ("log.txt", "params.yaml", "dvc.lock"):
        assert SECRET not in (finished / name).read_text()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_chain_sends_nothing(finished: Path) -> None:
    """What every process of the chain asked of the network, by the kernel's word."""
    calls = (finished.parent / "sent.txt").read_text().splitlines()
    assert calls, "it notes at least how processes end"
    assert [line for line in calls if re.search(r"AF_INET|AF_PACKET|AF_VSOCK", line)] == []


def test_the_trace_would_notice(tmp_path: Path) -> None:
    """The trace can fail: a process that asks for a name on the network is in it."""
    program = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
    run(tmp_path, *observed(tmp_path / "sent.txt"), sys.executable, "-c", program)
    if shutil.which("strace"):
        assert "AF_INET" in (tmp_path / "sent.txt").read_text()


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.rglob("*")}


def test_what_is_made_is_as_closed_as_the_pictures(tmp_path: Path) -> None:
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
    ("folder", "file", "shut"),
    [
        (0o755, 0o644, 0),
        (0o755, 0o640, 0o007),
        (0o750, 0o644, 0o007),
        (0o700, 0o644, 0o077),
        (0o711, 0o600, 0o077),
    ],
)
def test_who_may_not_read_a_picture(folder: int, file: int, shut: int, tmp_path: Path) -> None:
    inside = tmp_path / "s1"
    inside.mkdir()
    (inside / "1.pgm").touch(file)
    (inside / "1.pgm").chmod(file)
    inside.chmod(folder)
    assert permissions.closed([str(inside)], [str(inside / "1.pgm")]) == shut
