"""`pipelines.orchestration.supervise`: no process of a command outlives the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# Starts a child and writes both process ids; "deaf" ignores SIGTERM, the child of "stray" has its own session.
PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
if behaviour == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=behaviour == "stray")
(folder / "ids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.orchestration.supervise", *command], stdin=subprocess.PIPE
    )


def started(folder: Path) -> list[psutil.Process]:
    while not (folder / "ids").exists() or len((folder / "ids").read_text().split()) < 2:
        time.sleep(0.02)
    return [psutil.Process(int(number)) for number in (folder / "ids").read_text().split()]


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Returns whether all processes end within `seconds`, and are no zombies."""
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.parametrize("code", [0, 1, 75])
def test_exit_code_is_the_commands(tmp_path: Path, code: int) -> None:
    process = start(tmp_path, sys.executable, "-c", f"raise SystemExit({code})")
    assert process.wait(10) == code


def test_killed_command_has_its_own_exit_code(tmp_path: Path) -> None:
    process = start(tmp_path, sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert process.wait(10) == 137


@pytest.mark.parametrize("behaviour", ["plain", "stray"])
def test_sigterm_ends_the_whole_group(tmp_path: Path, behaviour: str) -> None:
    process = start(tmp_path, sys.executable, "-c", PROGRAM, str(tmp_path), behaviour)
    below = started(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert gone(below, 2)


def test_kill_9_of_the_parent_ends_the_whole_group(tmp_path: Path) -> None:
    """The supervisor sees that the pipe to the parent is closed."""
    command = [
        sys.executable,
        "-m",
        "pipelines.orchestration.supervise",
        sys.executable,
        "-c",
        PROGRAM,
        str(tmp_path),
        "plain",
    ]
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)\n"
            "time.sleep(600)",
            *command,
        ]
    )
    below = started(tmp_path)
    supervisor = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert gone([*below, *supervisor], 10)


def test_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    shorter = (
        "import sys; from pipelines.orchestration import supervise; supervise.GRACE = 0.5; "
        "sys.exit(supervise.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", shorter, sys.executable, "-c", PROGRAM, str(tmp_path), "deaf"],
        stdin=subprocess.PIPE,
    )
    below = started(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert gone(below, 2)


def test_command_can_write_after_its_reader_died(tmp_path: Path) -> None:
    """A stage that saves its work must not die of a closed pipe."""
    program = (
        "import pathlib, signal, sys, time\n"
        "received = []\n"
        "signal.signal(signal.SIGTERM, lambda *a: received.append(1))\n"
        "while not received:\n"
        "    print('working', flush=True)\n"
        "    time.sleep(0.05)\n"
        "print('saving', flush=True)\n"
        f"pathlib.Path({str(tmp_path / 'saved')!r}).touch()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.orchestration.supervise", sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"working\n"
    process.stdout.close()
    time.sleep(0.3)
    process.stdin.close()
    process.wait(10)
    assert (tmp_path / "saved").exists()
