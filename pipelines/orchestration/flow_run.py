"""The current flow run and its process: which process works on a run, and what happens when that process is stopped.

Prefect's worker records the process id of a run without the host, and a run that is continued has a new process. So
each flow notes its own process in a label of the run (`claim`), by which `pipelines.orchestration.server.reconcile`
recognises a run whose process is dead.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, TerminationSignal
from prefect.states import Cancelled, Scheduled

FLOWS = ("run", "sweep", "sensor", "audit")
"""The flows of the deployments: each claims its run as it starts."""
CLAIM = timedelta(minutes=2)
"""Time within which a process claims its run; it takes some seconds."""
LABEL = "fra.process"
"""The label of a flow run that names its process: host:pid:start, see `process_start`."""


def process_start(pid: int) -> str | None:
    """Returns when a process started, in clock ticks since boot; None if it has ended (Linux only).

    It distinguishes a process from a later one with the same id, even if the system's clock is changed.
    """
    try:
        # The second field, the program's name in brackets, may contain spaces and brackets itself.
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start = fields[0], fields[19]
    return None if state in "ZX" else start


def claim(client: SyncPrefectClient, run: UUID) -> None:
    """Notes in a flow run that this process works on it."""
    pid = os.getpid()
    client.update_flow_run(run, infrastructure_pid=f"{socket.gethostname()}:{pid}")
    client.update_flow_run_labels(run, {LABEL: f"{socket.gethostname()}:{pid}:{process_start(pid)}"})


def is_dead(run: FlowRun) -> bool:
    """Returns whether the process that claimed a run has ended.

    False if that is unknown: the run was never claimed, on another host, or a worker has just started another process
    for it, which has not claimed it yet.
    """
    host, _, process = str(run.labels.get(LABEL, "")).partition(":")
    pid, _, start = process.partition(":")
    started = (run.infrastructure_pid or "").rpartition(":")[2]
    if host != socket.gethostname() or not pid.isdigit() or started != pid:
        return False
    return process_start(int(pid)) != start


def is_unclaimed(run: FlowRun) -> bool:
    """Returns whether no process claimed a started run of `FLOWS` within `CLAIM`.

    So a run is found whose worker died while it started the process, or whose process died before it claimed the run:
    it is Pending, or Running without heartbeats, and nothing else would end it.
    """
    claim = str(run.labels.get(LABEL, "")).rpartition(":")[0]
    pid = (run.infrastructure_pid or "").rpartition(":")[2]
    if run.state is None or run.state_type not in (StateType.PENDING, StateType.RUNNING):
        return False
    if run.state_type == StateType.RUNNING and claim.rpartition(":")[2] == pid:
        return False
    return datetime.now(UTC) - run.state.timestamp > CLAIM


@contextmanager
def claimed() -> Iterator[FlowRun]:
    """The flow run of the calling flow function, claimed by this process.

    Task runs of an earlier process of the same run are ended. A stop signal, or the death of the worker that started
    this process, ends the flow function; the run of a deployment is then scheduled again, unless it was cancelled.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run = context.flow_run
    with stop_with_worker():
        try:
            with get_client(sync_client=True) as client:
                claim(client, run.id)
                end_tasks(client, run.id)
            yield run
        except (TerminationSignal, KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # further ones change nothing
            reschedule(run)
            raise


def end_tasks(client: SyncPrefectClient, run: UUID) -> None:
    """Marks the unfinished task runs of a flow run whose process has ended as Cancelled."""
    unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
    for found in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
        task_run_filter=TaskRunFilter.model_validate(unfinished),
    ):
        client.set_task_run_state(found.id, Cancelled(message="Its process has ended."), force=True)


def reschedule(run: FlowRun) -> None:
    """Schedules the run of a deployment again, for another worker to continue, unless it was cancelled.

    Raises:
        Abort: it was scheduled; this process must not set the run's state any more.
    """
    if run.deployment_id is None:
        return
    with get_client(sync_client=True) as client:
        if client.read_flow_run(run.id).state_type == StateType.CANCELLING:
            return
        state: State[Any] = Scheduled(message="Its worker ended; continues from what was saved.")
        end_tasks(client, run.id)
        client.set_flow_run_state(run.id, state, force=True)
    raise Abort("the worker of this run ended; another one continues it")


@contextmanager
def stop_with_worker() -> Iterator[None]:
    """Sends this process SIGTERM when the worker that started it dies."""
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if os.environ.get(
        "PREFECT__FLOW_RUN_ID"
    ):  # started by a worker; a run may outlive the shell it was started in
        threading.Thread(target=watch, daemon=True, name="watch-parent").start()
    try:
        yield
    finally:
        over.set()
