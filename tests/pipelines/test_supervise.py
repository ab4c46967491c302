from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# Ignores SIGTERM where told to; starts a child; both write their process ids.
PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
folder, manner = pathlib.Path(sys.argv[1]), sys.argv[2]
if manner == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=manner == "stray")
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
    """Dead and collected: a zombie still counts as there."""
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.parametrize("code", [0, 1, 75])
def test_exit_code_is_the_commands(tmp_path, code):
    process = start(tmp_path, sys.executable, "-c", f"raise SystemExit({code})")
    assert process.wait(10) == code


def test_killed_command_is_told_from_a_failed_one(tmp_path):
    process = start(tmp_path, sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert process.wait(10) == 137


@pytest.mark.parametrize("manner", ["plain", "stray"])
def test_sigterm_ends_the_whole_group(tmp_path, manner):
    process = start(tmp_path, sys.executable, "-c", PROGRAM, str(tmp_path), manner)
    below = started(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert gone(below, 2)


def test_parent_killed_ends_the_whole_group(tmp_path):
    """The parent is killed with -9 and can do nothing: the closed pipe tells."""
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


def test_deaf_command_is_killed_after_its_grace(tmp_path):
    shorter = (
        "import sys; from pipelines import supervise as it; it.GRACE = 0.5; sys.exit(it.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", shorter, sys.executable, "-c", PROGRAM, str(tmp_path), "deaf"],
        stdin=subprocess.PIPE,
    )
    below = started(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert gone(below, 2)


def test_writing_goes_on_when_the_reader_is_dead(tmp_path):
    """A stage that saves its work must not die of a closed pipe."""
    program = (
        "import pathlib, signal, sys, time\n"
        "told = []\n"
        "signal.signal(signal.SIGTERM, lambda *a: told.append(1))\n"
        "while not told:\n"
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
