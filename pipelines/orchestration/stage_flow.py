"""Runs a stage as a flow run of the Prefect server that `PREFECT_API_URL` names."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.states import Cancelled, Failed

from pipelines.orchestration import flow_run
from pipelines.orchestration.environment import PARENT_TASK_RUN
from pipelines.orchestration.server import answers
from pipelines.project.errors import describe

LEASE = 90.0
"""Seconds after which a limit's slot is free again if the process that holds it died; a live process renews it."""
AWAY = 300.0
"""Seconds for which the server may be away while a stage waits for its slot; `make serve` restarts it within these."""
PAUSE = 5.0
"""Seconds between two attempts to get a slot from a server that is away."""

logger = logging.getLogger("fra")


def run_as_flow(stage: Callable[[], None], limit: str | None) -> None:
    """Runs `stage` as a flow run, below the parent flow's task run if there is one; without it if the server is away.

    Args:
        stage: the stage's function; what it raises is raised here.
        limit: a global concurrency limit to hold meanwhile.

    Raises:
        RuntimeError: the flow run was cancelled before the stage began.
    """
    outcomes: list[BaseException | None] = []

    def run_stage() -> Any:
        with limit_slot(limit):
            try:
                stage()
            except BaseException as error:
                outcomes.append(error)
                if isinstance(error, SystemExit) and error.code == os.EX_TEMPFAIL:
                    return Cancelled(message="Stopped by a signal; saved, and continues when started again.")
                if isinstance(error, Exception):
                    return Failed(message=describe(error))
                raise
            outcomes.append(None)
        return None

    logger.setLevel(logging.INFO)
    stage_flow = flow(run_stage).with_options(name=stage.__name__)
    parent = os.environ.get(PARENT_TASK_RUN)
    cancelled = False
    try:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(
                stage_flow,
                name=os.environ.get("DVC_STAGE", stage.__name__),
                parent_task_run_id=UUID(parent) if parent else None,
            )
            flow_run.claim(client, run.id)
        state = cast("State[Any]", run_flow(stage_flow, flow_run=run, return_type="state"))
        reason, cancelled = state.message, state.is_cancelled() or state.is_cancelling()
    except Exception as error:  # raised by Prefect: the stage's own exception is in `outcomes`
        if not outcomes and not isinstance(error, (httpx.HTTPError, ValueError)):
            raise
        reason = f"it does not answer, or not as one: {describe(error)}"
        if outcomes:
            logger.warning("the end of the stage is not shown on the Prefect server (%s)", reason)
    if cancelled and not outcomes:
        raise RuntimeError(f"the flow run was cancelled before the stage began: {reason}")
    if not outcomes:
        unlimited = f", and without the limit {limit!r}, which another run may hold" if limit else ""
        logger.warning("the stage runs without the Prefect server (%s)%s", reason, unlimited)
        stage()
    elif outcomes[0] is not None:
        raise outcomes[0]


@contextmanager
def limit_slot(limit: str | None) -> Iterator[None]:
    """Holds the only slot of a global concurrency limit, created if missing; waits for it without a timeout.

    Raises:
        httpx.HTTPError, ConcurrencySlotAcquisitionError: the server was away for longer than `AWAY`.
    """
    with ExitStack() as slot:
        if limit is not None:
            logger.info("waiting for the limit %r, if another run holds it", limit)
            while (failed := acquire(limit, slot)) is not None:
                wait_for_server(failed)
        yield


def acquire(limit: str, slot: ExitStack) -> Exception | None:
    """Waits for the slot of a limit, and adds its release to `slot`; returns the error if the server went away."""
    try:
        with get_client(sync_client=True) as client:
            try:
                client.read_global_concurrency_limit_by_name(limit)
            except ObjectNotFound:
                client.upsert_global_concurrency_limit_by_name(limit, 1)
        slot.enter_context(
            concurrency(
                limit, occupy=1, lease_duration=LEASE, strict=True, raise_on_lease_renewal_failure=False
            )
        )
    except (httpx.HTTPError, ConcurrencySlotAcquisitionError) as error:
        return error
    return None


def wait_for_server(failed: Exception) -> None:
    """Returns when the server answers again; raises `failed`, by which it was noticed, if it does not within `AWAY`."""
    logger.warning("waiting for the Prefect server, which does not answer (%s)", describe(failed))
    deadline = time.monotonic() + AWAY
    while time.monotonic() < deadline:
        time.sleep(PAUSE)
        if answers(os.environ["PREFECT_API_URL"]):
            return
    raise failed
