"""The Prefect server: its address, runs whose process is dead, and earlier runs of the same schedule."""

from __future__ import annotations

import os
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.orchestration.environment import PAGES_URL

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

ADDRESS = Path(".prefect/address")
"""Holds the address of the API of the server that `make serve` runs, while it runs."""
PAGES = Path(".prefect/pages")
"""Holds the address of the pages in artifacts/ that `make serve` serves, while it runs."""
MAX_STARTS = 5
"""A run whose process died this often is not scheduled again automatically."""


def answers(url: str) -> bool:
    """Returns whether a Prefect server answers at the address of its API, and not a page at another address."""
    import httpx

    try:
        found = httpx.get(f"{url}/health", timeout=5)
        return bool(found.is_success) and "html" not in found.headers.get("content-type", "")
    except httpx.HTTPError:
        return False


def stored_address(path: Path) -> str | None:
    """Returns the address in a file that `make serve` wrote, or None."""
    return (path.read_text().strip() or None) if path.is_file() else None


def served_address() -> str | None:
    """Returns the address of the server that `make serve` runs in this folder, if it answers."""
    url = stored_address(ADDRESS)
    return url if url and answers(url) else None


def address() -> str | None:
    """Returns the server's address: `PREFECT_API_URL`, else that of `make serve`; None if it does not answer.

    A missing `/api` at the end of `PREFECT_API_URL` is added: without it, the interface's pages answer.
    """
    if url := os.environ.get("PREFECT_API_URL", "").rstrip("/"):
        return next((one for one in (url, f"{url}/api") if answers(one)), None)
    return served_address()


def pages_address() -> str | None:
    """Returns the address at which `make serve` serves the pages in artifacts/, or None if it does not run."""
    return os.environ.get(PAGES_URL) or (stored_address(PAGES) if served_address() else None)


def reconcile(logger: Logger | LoggerAdapter[Any]) -> list[FlowRun]:
    """Ends every run whose process on this machine is dead, or that no process claimed in time; returns these runs.

    The run of a deployment is scheduled again and continues from what was saved. Any other is marked Crashed; a run
    that was being cancelled is marked Cancelled. Their unfinished task runs are marked Cancelled.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Cancelled, Crashed, Scheduled

    from pipelines.orchestration import flow_run

    with get_client(sync_client=True) as client:

        def read(flows: FlowFilter | None, *states: str) -> list[FlowRun]:
            chosen = FlowRunFilter.model_validate({"state": {"type": {"any_": states}}})
            return client.read_flow_runs(flow_filter=flows, flow_run_filter=chosen)

        ours = FlowFilter.model_validate({"name": {"any_": flow_run.FLOWS}})
        dead = {run.id: run for run in read(None, "RUNNING", "CANCELLING") if flow_run.is_dead(run)}
        dead |= {run.id: run for run in read(ours, "PENDING", "RUNNING") if flow_run.is_unclaimed(run)}
        for run in dead.values():
            state: State[Any]
            if run.state_type == StateType.CANCELLING:
                state = Cancelled(message="Its process has ended.")
            elif run.deployment_id and run.run_count < MAX_STARTS:
                state = Scheduled(message="Its process died; continues from what was saved.")
            else:
                state = Crashed(message="Its process died.")
            flow_run.end_tasks(client, run.id)
            client.set_flow_run_state(run.id, state, force=True)
            logger.warning("%s: its process (%s) is dead: %s", run.name, run.infrastructure_pid, state.name)
    return list(dead.values())


def started_before(one: FlowRun, other: FlowRun) -> bool:
    """Returns whether `one` started before `other`."""
    return one.start_time is not None and (other.start_time is None or one.start_time < other.start_time)


def running_earlier(run: FlowRun) -> FlowRun | None:
    """Returns an earlier run of the same schedule that is still running, if any: scheduled runs must not pile up."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    if not run.auto_scheduled or run.run_count > 1:
        return None
    same = {"deployment_id": {"any_": [str(run.deployment_id)]}, "state": {"type": {"any_": ["RUNNING"]}}}
    with get_client(sync_client=True) as client:
        others = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(same))
    return next(
        (
            other
            for other in others
            if other.id != run.id and other.auto_scheduled and started_before(other, run)
        ),
        None,
    )
