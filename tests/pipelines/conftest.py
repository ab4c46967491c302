from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.serving import Served, Toy, make_toy, serving
from support.workspace import SECRET, USER, add_bad_files, few_faces, make_workspace, observed, run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the whole chain ran, on few faces with bad files among them. Tests must not change it.

    It ran under the eyes of tests/pipelines/test_privacy.py. Several processes of pytest share one: the first makes it.
    """
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    shared = tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent
    with FileLock(shared / "chain.lock"):
        if not (shared / "chain/workspace/log.txt").exists():
            run_chain(shared / "chain")
    return shared / "chain/workspace"


def run_chain(folder: Path) -> None:
    """Makes the folder `workspace`, and `sent.txt` about what it tried to send; `log.txt` in it comes last."""
    shutil.rmtree(folder, ignore_errors=True)
    faces = few_faces(folder / "faces")
    add_bad_files(faces)
    workspace = folder / "workspace"
    workspace.mkdir()
    make_workspace(workspace, f"dataset.root={faces}", "validate.max_quarantined=0.05")
    secrets = {
        "USER": USER,
        "LOGNAME": USER,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "PREFECT_SERVER_API_AUTH_STRING": SECRET,
    }
    done = run(workspace, *observed(folder / "sent.txt"), "dvc", "repro", **secrets)
    assert done.returncode == 0, done.stdout
    (workspace / "log.txt").write_text(done.stdout)


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workspace that a test may change."""
    copy = tmp_path / "workspace"
    shutil.copytree(finished, copy, symlinks=True)
    return copy


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A pipeline of stand-ins that take a moment each, in a folder of its own."""
    return make_toy(tmp_path)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`make serve` in the folder of a toy pipeline."""
    with serving(make_toy(tmp_path_factory.mktemp("served"))) as at_work:
        yield at_work
