"""Commands that are started outside the project's root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.workspace import ROOT, run, run_fra


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with dvc.yaml and a sub-folder."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "below").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "pipelines.ingest",
        "pipelines.run",
        "pipelines.serve",
        "fra lineage verify",
        "fra data approve --by Ann",
        "fra transfer recompute",
        "fra compare",
    ],
)
def test_subfolder_is_refused_with_the_way_to_the_root(project: Path, command: str) -> None:
    program, *arguments = command.split()
    if program == "fra":
        done = run_fra(project / "below", *arguments)
    else:
        done = run(project / "below", sys.executable, "-m", program, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    line = done.stdout.strip()
    assert line.startswith("error: ")
    assert line.endswith(f"{project}/below: not the project's root: go there first (cd {project})")
    assert list((project / "below").iterdir()) == []


def test_folder_outside_of_a_project_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-m", "pipelines.run", PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert "not in a project (dvc.yaml is missing): go to the project's root first" in done.stdout


def test_parameters_are_not_written_in_a_subfolder(project: Path) -> None:
    done = run(project / "below", sys.executable, "-m", "pipelines.params", PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert "no such folder" in done.stdout
    assert "go to the project's root first" in done.stdout
    assert list((project / "below").iterdir()) == []


def test_help_and_default_weights_in_a_subfolder(project: Path) -> None:
    assert run_fra(project / "below", "lineage", "verify", "--help").returncode == 0
    command = (sys.executable, "-m", "pipelines.cli", "embed", "--help")
    done = run(project / "below", *command, PYTHONPATH=str(ROOT), COLUMNS="200")
    assert "../artifacts/pretrain/model.safetensors" in done.stdout
