"""Whether the process of a flow run is dead, by the process that claimed it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from pipelines.orchestration.flow_run import LABEL, is_dead, is_unclaimed, process_start

HOST = socket.gethostname()


def claimed(process: str, infrastructure_pid: str, **more: Any) -> FlowRun:
    """Returns a flow run that a process claimed, and that started an hour ago."""
    start = datetime.now(UTC) - timedelta(hours=1)
    about = {"labels": {LABEL: process}, "infrastructure_pid": infrastructure_pid, "start_time": start}
    return FlowRun.model_validate({"flow_id": uuid4(), **about, **more})


def test_run_of_a_younger_process_is_alive() -> None:
    """A continued run has an old start time and a new process."""
    pid = os.getpid()
    assert not is_dead(claimed(f"{HOST}:{pid}:{process_start(pid)}", f"{HOST}:{pid}"))


def test_run_of_an_ended_process_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run = claimed(f"{HOST}:{process.pid}:{process_start(process.pid)}", f"{HOST}:{process.pid}")
        assert not is_dead(run)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(run)  # a zombie, which its parent has not collected yet
    assert is_dead(run)


def test_run_is_dead_if_its_process_id_was_used_again() -> None:
    assert is_dead(claimed(f"{HOST}:{os.getpid()}:1", f"{HOST}:{os.getpid()}"))


@pytest.mark.parametrize(
    ("process", "infrastructure_pid"),
    [
        ("another-host:1:1", "another-host:1"),
        (
            f"{HOST}:999999999:1",
            "4242",
        ),  # a worker has just started process 4242, which has not claimed the run
        ("", "4242"),
    ],
)
def test_run_of_an_unknown_process_counts_as_alive(process: str, infrastructure_pid: str) -> None:
    assert not is_dead(claimed(process, infrastructure_pid))


@pytest.mark.parametrize(
    ("state", "minutes", "process", "infrastructure_pid", "unclaimed"),
    [
        ("PENDING", 3, "", None, True),  # its worker died before it started a process
        ("PENDING", 3, f"{HOST}:1:1", "4242", True),  # process 4242 died; an earlier one had claimed the run
        ("PENDING", 1, "", "4242", False),
        ("RUNNING", 3, "", "4242", True),
        ("RUNNING", 3, "another-host:1:1", "4242", True),
        ("RUNNING", 1, "", "4242", False),
        ("RUNNING", 99, "another-host:4242:1", "4242", False),
        ("RUNNING", 99, "another-host:4242:1", "another-host:4242", False),
        ("SCHEDULED", 99, "", None, False),
    ],
)
def test_run_is_unclaimed_two_minutes_after_its_start(
    state: str, minutes: int, process: str, infrastructure_pid: str | None, unclaimed: bool
) -> None:
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    run = claimed(process, "", state={"type": state, "timestamp": since}, state_type=state)
    assert is_unclaimed(run.model_copy(update={"infrastructure_pid": infrastructure_pid})) == unclaimed
