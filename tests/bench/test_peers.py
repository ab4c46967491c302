"""Peers run in processes of their own and are measured in alternating rounds; no environment is built here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fra.bench.peers.process import Peer, python_of, requirements, running
from pipelines.cli.benchmark import bench

FOLDER = Path(__file__).parents[2] / "fra" / "bench" / "peers"
PEERS = sorted(file.stem for file in FOLDER.glob("*.py") if "def prepare" in file.read_text())


def test_requirements_are_one_version_each() -> None:
    needed = {name: requirements(name) for name in PEERS}
    assert needed["lightly"] == ["lightly==1.6.0"]
    assert needed["plain_autocast"] == []
    assert all(one.count("==") == 1 for found in needed.values() for one in found)


def test_environment_is_the_running_one_or_the_one_that_was_made(tmp_path: Path) -> None:
    assert python_of(Peer("numpy", tmp_path)) == sys.executable
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "requirements.txt").write_text("\n".join(requirements("faiss")))
    assert python_of(Peer("faiss", tmp_path)) == str(tmp_path / "faiss" / "bin" / "python")


@pytest.mark.slow
def test_comparison_with_a_peer() -> None:
    command = ["search", "--peer", "numpy", "--rows", "50", "--size", "8", "--rounds", "1", "--json"]
    done = CliRunner().invoke(bench, command, catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ratio"] == pytest.approx(found["ours"] / found["baseline"])
    assert found["cpu_ratio"] > 0
    assert found["peer"] == "numpy"


@pytest.mark.slow
def test_failure_of_a_peer_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="the peer numpy failed with exit code 1"),
        running(Peer("numpy", tmp_path), {"folder": str(tmp_path / "missing"), "count": 1}),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [
            "step",
            "--peer",
            "plain-autocast",
            "--backbone",
            "mini",
            "--hidden-dim",
            "32",
            "--image-size",
            "32",
        ],
        ["shards", "--peer", "webdataset", "--images", "50", "--processes", "2"],
        ["probe", "--peer", "scikit-learn", "--images", "100", "--features", "8", "--labels", "2"],
    ],
    ids=lambda command: command[2],
)
def test_peers_without_an_environment(command: list[str]) -> None:
    done = CliRunner().invoke(bench, [*command, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ratio"] == pytest.approx(found["ours"] / found["baseline"])
