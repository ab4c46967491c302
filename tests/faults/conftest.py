from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import COMMANDS, Command, contents, undisturbed
from support.harm import FAULTS
from support.workspace import few_faces, make_workspace, run

Reference = tuple[float, dict[str, str]]
"""The seconds of an undisturbed run, and the SHA-256 of each file that it writes."""
SEEN: dict[tuple[str, str], list[str]] = {}
"""Outcome, message and leftovers of each command and fault of this test run."""
HEAD = """# Faults, injected

Each row is a run of a stage or command that was disturbed by a fault, and then started again without the fault. It
passed if the disturbed run gave the right result, or ended with an exit code other than 0 and one line with the reason
(or by the signal); if the second run completed with files byte-identical to those of an undisturbed run; if `fra
lineage verify` passed; and if no temporary file, lock, checkpoint or process was left over. DVC stores its read and
write locks in `.dvc/tmp/rwlock`; entries of processes that are no longer alive are not counted, as DVC ignores them.

The test run writes this page, as root on Linux: `pytest tests/faults/test_cells.py --table docs/reference/faults.md`;
with `-k` only the selected rows are replaced (a missing row was not run yet). The full and the read-only disk are a
mounted tmpfs; memory is limited by `prlimit --as`; the clock is moved in the modification times of files; signals go to
the process only, at a time drawn with a fixed seed. One input file of each command is damaged: `reads` in
tests/support/commands.py. GPUs are not disturbed; tests/pipelines/test_serve.py kills the Prefect server. A number that
was changed in a text file (annotations, `index.json`) is detected by `dvc repro`, `fra lineage verify` and the stage
`validate`, not by the stage that reads it.

"""


COLUMNS = "| Stage or command | Fault | Outcome | Message | Left over |\n| --- | --- | --- | --- | --- |\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="Replace the rows of this page by those that are run")
    parser.addoption("--chain", type=Path, help="A finished workspace to copy, in place of making one")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    about = dict(report.user_properties)
    if report.when == "call" and "cell" in about:
        command, fault = about["cell"]
        seen = about.get("seen", ["", ""]) if report.passed else ["FAILED", ""]
        SEEN[command, fault] = [
            *(textwrap.shorten(part, 240, placeholder=" …") for part in seen),
            "nothing" if report.passed else "see the test",
        ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = session.config.getoption("--table", default=None)
    if page is None or not SEEN:
        return
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    split = [
        [part.strip() for part in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")
    ]
    rows = {(row[0], row[1]): row[2:] for row in split[2:]} | SEEN
    cells = [(command.name, fault) for command in COMMANDS for fault in FAULTS]
    table = "".join(f"| {' | '.join([*cell, *rows[cell]])} |\n" for cell in cells if cell in rows)
    passed = sum(row[0] != "FAILED" for row in rows.values())
    page.write_text(f"{HEAD}{len(rows)} cells, {passed} passed.\n\n{COLUMNS}{table}", encoding="utf-8")


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
