"""What is asked of the Prefect server beyond flows and tasks: where it is, who runs what, and which runs are dead."""

from __future__ import annotations

import os
import socket
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

ADDRESS = Path(".prefect/address")
"""Where `make serve` notes the address of its server's interface for programs, while it runs."""
MAX_STARTS = 5
"""A run that died this often with its process is not started again by itself."""


def answers(url: str) -> bool:
    """Whether a Prefect server listens there."""
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def running() -> str | None:
    """The server that `make serve` runs in this folder, if it answers."""
    url = ADDRESS.read_text().strip() if ADDRESS.is_file() else ""
    return url if url and answers(url) else None


def address() -> str | None:
    """The server to speak with: that of `PREFECT_API_URL` or else that of `make serve`; None where it is away."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url if answers(url) else None
    return running()


def process() -> str:
    """This process, as Prefect writes it: host:pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


def claim(client: SyncPrefectClient, run: UUID) -> None:
    """Notes in a flow run which process works on it."""
    client.update_flow_run(run, infrastructure_pid=process())


def is_dead(run: FlowRun) -> bool:
    """Whether the process that worked on a run is gone. False where that cannot be known from this machine."""
    import psutil

    host, _, pid = (run.infrastructure_pid or "").rpartition(":")
    if host != socket.gethostname() or not pid.isdigit() or run.start_time is None:
        return False
    try:
        found = psutil.Process(int(pid))
        # A process that started after the run is another one with the same number.
        reused = found.create_time() > run.start_time.timestamp() + 60
        return reused or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def reconcile(logger: Logger | LoggerAdapter[Any]) -> list[FlowRun]:
    """Ends every run that the server takes for running but whose process on this machine is dead; returns them.

    A run of a deployment is scheduled again: it continues where it was. Any other is marked Crashed, a run that was
    being cancelled is Cancelled.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import StateType
    from prefect.states import Cancelled, Crashed, Scheduled

    with get_client(sync_client=True) as client:
        unfinished = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}})
        dead = [run for run in client.read_flow_runs(flow_run_filter=unfinished) if is_dead(run)]
        for run in dead:
            if run.state_type == StateType.CANCELLING:
                state = Cancelled(message="Its process is gone.")
            elif run.deployment_id and run.run_count < MAX_STARTS:
                state = Scheduled(message="Its process died; continues where it was.")
            else:
                state = Crashed(message="Its process died.")
            client.set_flow_run_state(run.id, state, force=True)
            logger.warning("%s: its process (%s) is dead: %s", run.name, run.infrastructure_pid, state.name)
    return dead


def before(one: FlowRun, other: FlowRun) -> bool:
    """Whether one run started before another."""
    return one.start_time is not None and (other.start_time is None or one.start_time < other.start_time)


def at_it(run: FlowRun) -> FlowRun | None:
    """An earlier run of the same schedule that still works: so that they do not pile up where one takes longer."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    if not run.auto_scheduled or run.run_count > 1:
        return None
    same = {"deployment_id": {"any_": [str(run.deployment_id)]}, "state": {"type": {"any_": ["RUNNING"]}}}
    with get_client(sync_client=True) as client:
        others = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(same))
    return next(
        (other for other in others if other.id != run.id and other.auto_scheduled and before(other, run)),
        None,
    )
