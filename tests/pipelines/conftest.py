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
    """A workspace in which the whole chain ran, on few images, some of them damaged. Tests must not change it.

    Its system calls were traced for tests/pipelines/test_privacy.py. All processes of one test run share it: the first
    one makes it.
    """
    single = "PYTEST_XDIST_WORKER" not in os.environ
    shared = tmp_path_factory.getbasetemp() if single else tmp_path_factory.getbasetemp().parent
    with FileLock(shared / "chain.lock"):
        if not (shared / "chain/workspace/log.txt").exists():
            run_chain(shared / "chain")
    return shared / "chain/workspace"


def run_chain(folder: Path) -> None:
    """Makes the folder `workspace`, and the trace `sent.txt`; `log.txt` in the workspace is written last."""
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
    done = run(workspace, *observed(folder / "sent.txt"), "dvc", "repro", timeout=1800, **secrets)
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
    """The toy pipeline, whose stages take a moment each, in its own folder."""
    return make_toy(tmp_path)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`make serve` in the folder of a toy pipeline."""
    with serving(make_toy(tmp_path_factory.mktemp("served"))) as running:
        yield running
