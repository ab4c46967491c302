"""Every fault × every stage and command: no lost or silently wrong result, and no leftovers.

    pytest tests/faults/test_cells.py --table docs/reference/faults.md

writes the outcomes into docs/reference/faults.md.
Needs root, for the full disk and the read-only folder: they are mounted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.commands import COMMANDS, Command, contents, undisturbed
from support.harm import FAULTS, Ended
from support.outcomes import read_outcomes
from support.workspace import ROOT

from pipelines.lineage.verify import verify

NOTHING_WRITTEN = ("disk full", "output read-only")


def fits(fault: str, command: Command) -> bool:
    """Returns whether a fault applies: only what writes needs a disk, and only DVC takes DVC's lock."""
    return (command.name == "dvc repro" or fault != "lock of the dead") and (
        bool(command.writes) or fault not in NOTHING_WRITTEN
    )


CELLS = [
    pytest.param(fault, command, id=f"{fault} × {command.name}")
    for command in COMMANDS
    for fault in FAULTS
    if fits(fault, command)
]


def left(workspace: Path) -> list[str]:
    """Returns temporary files, DVC's locks, checkpoints and processes that a run left."""
    files = [
        str(path.relative_to(workspace))
        for pattern in (".*.partial", "*.partial-*", "step-*")
        for path in workspace.rglob(pattern)
    ]
    running = [f"process {process.pid}: {process.name()}" for process in processes(workspace)]
    return files + locks(workspace) + running


def locks(workspace: Path) -> list[str]:
    """Returns DVC's locks of live processes; DVC ignores those of dead ones (`_check_blockers` in its rwlock.py)."""
    entries_file = workspace / ".dvc/tmp/rwlock"
    table = json.loads(entries_file.read_text()) if entries_file.exists() else {}
    readers = [(path, entry) for path, entries in table.get("read", {}).items() for entry in entries]
    holders = [*readers, *table.get("write", {}).items()]
    return [f"lock on {path}" for path, entry in holders if psutil.pid_exists(entry["pid"])]


def processes(workspace: Path) -> list[psutil.Process]:
    """Returns the processes in the workspace that do not end within ten seconds."""

    def here(process: psutil.Process) -> bool:
        try:
            return process.cwd() == str(workspace)
        except psutil.Error:
            return False

    return psutil.wait_procs([process for process in psutil.process_iter() if here(process)], timeout=10)[1]


def errors(output: str) -> list[str]:
    """Returns the error lines: ours, else DVC's, which after ours only adds the stage."""
    ours = re.findall(r"^(?:error|not an image): .*", output, re.MULTILINE)
    return ours or re.findall(r"^ERROR: .*", output, re.MULTILINE)


def outcome(fault: str, command: Command, ended: Ended, right: bool) -> str:
    """Returns the outcome of the disturbed run; fails if it is neither right nor clearly reported."""
    assert "Traceback" not in ended.output, ended.output
    if fault in ("SIGKILL", "SIGTERM") and ended.code:
        assert ended.code in (-signal.SIGKILL, -signal.SIGTERM, 75, 143, 255), (ended.code, ended.output)
        return "saved" if ended.code == 75 else "signal"
    messages = errors(ended.output)
    if command.name == "fra lineage verify" and ended.code:
        messages = messages or [line for line in ended.output.splitlines() if command.reads in line][:1]
    if ended.code == 0:
        assert right, f"silently wrong: {ended.output}"
        return "result"
    assert len(messages) == 1, f"exit code {ended.code}, not one clear line: {ended.output}"
    return "message"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which root may")
@pytest.mark.parametrize(("fault", "command"), CELLS)
def test_fault_is_survived_or_reported(
    fault: str,
    command: Command,
    fresh: Callable[[Command], Path],
    reference: Callable[[Command], tuple[float, dict[str, str]]],
    record_property: Callable[[str, object], None],
) -> None:
    record_property("cell", [command.name, fault])
    seconds, expected = reference(command)
    workspace = fresh(command)
    every = FAULTS[fault](command, workspace, seconds)
    orphans = [process.name() for process in processes(workspace)]
    right = contents(workspace, command.writes) == expected
    found = [outcome(fault, command, ended, right) for ended in every]
    assert not orphans
    undisturbed(command, workspace)
    assert contents(workspace, command.writes) == expected
    shutil.rmtree(workspace / "data/withdrawn/orl", ignore_errors=True)
    assert verify(workspace).problems == []
    assert left(workspace) == []
    record_property("seen", ", ".join(sorted(set(found))))


def test_the_page_has_an_outcome_of_every_cell() -> None:
    outcomes = read_outcomes((ROOT / "docs/reference/faults.md").read_text(encoding="utf-8"))
    assert set(outcomes) == {
        (command.name, fault) for command in COMMANDS for fault in FAULTS if fits(fault, command)
    }
    assert {kind for cell in outcomes.values() for kind in cell.split(", ")} <= {
        "result",
        "message",
        "signal",
        "saved",
    }
