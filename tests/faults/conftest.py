from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Command, contents, undisturbed
from support.outcomes import Outcomes, with_outcomes
from support.workspace import few_faces, make_workspace, run

Reference = tuple[float, dict[str, str]]
"""The seconds of an undisturbed run, and the SHA-256 of each file that it writes."""
SEEN: Outcomes = {}
"""Outcome of each command and fault of this test run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="Write the outcomes into the table of this page")
    parser.addoption("--chain", type=Path, help="A finished workspace to copy, in place of making one")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    about = dict(report.user_properties)
    if report.when == "call" and "cell" in about:
        command, fault = about["cell"]
        SEEN[command, fault] = about["seen"] if report.passed else "FAILED"


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = session.config.getoption("--table", default=None)
    if page is not None and SEEN:
        page.write_text(with_outcomes(page.read_text(encoding="utf-8"), SEEN), encoding="utf-8")


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the whole chain ran, with its images inside. Tests must not change it."""
    if finished := request.config.getoption("--chain", default=None):
        return finished
    workspace = tmp_path_factory.mktemp("base") / "workspace"
    few_faces(workspace / "faces")
    make_workspace(workspace, "dataset.root=faces")
    done = run(workspace, "dvc", "repro")
    assert done.returncode == 0, done.stdout
    return workspace


def copy(base: Path, folder: Path, command: Command) -> Path:
    """Copies the finished workspace, without the outputs of the command."""
    workspace = folder / "workspace"
    shutil.copytree(base, workspace, symlinks=True)
    for path in command.writes:
        shutil.rmtree(workspace / path, ignore_errors=True)
    return workspace


@pytest.fixture
def fresh(base: Path, tmp_path: Path) -> Callable[[Command], Path]:
    return lambda command: copy(base, tmp_path, command)


@pytest.fixture(scope="session")
def reference(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Command], Reference]:
    """A function that returns duration and outputs of an undisturbed run of a command."""
    known: dict[str, Reference] = {}

    def measured(command: Command) -> Reference:
        if command.name not in known:
            workspace = copy(base, tmp_path_factory.mktemp("undisturbed"), command)
            known[command.name] = undisturbed(command, workspace), contents(workspace, command.writes)
            chain = contents(base, command.writes)
            assert command.writes[:1] == ("out",) or not chain or chain == known[command.name][1]
        return known[command.name]

    return measured
