"""Runs a stage as a flow run of the Prefect server that `PREFECT_API_URL` names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.states import Cancelled, Failed

from pipelines.orchestration import flow_run
from pipelines.orchestration.environment import PARENT_TASK_RUN
from pipelines.project.errors import describe

LEASE = 90.0
"""Seconds after which a limit's slot is free again if the process that holds it died; a live process renews it."""

logger = logging.getLogger("fra")


def run_as_flow(stage: Callable[[], None], limit: str | None) -> None:
    """Runs `stage` as a flow run, below the parent flow's task run if there is one; without it if the server is away.

    Args:
        stage: the stage's function; what it raises is raised here.
        limit: a global concurrency limit to hold meanwhile.
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
    try:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(
                stage_flow,
                name=os.environ.get("DVC_STAGE", stage.__name__),
                parent_task_run_id=UUID(parent) if parent else None,
            )
            flow_run.claim(client, run.id)
        run_flow(stage_flow, flow_run=run, return_type="state")
    except Exception as error:  # raised by Prefect: the stage's own exception is in `outcomes`
        if not outcomes and not isinstance(error, httpx.TransportError):
            raise
        logger.warning("the Prefect server does not answer (%s); the stage runs without it", describe(error))
    if not outcomes:
        stage()
    elif outcomes[0] is not None:
        raise outcomes[0]


@contextmanager
def limit_slot(limit: str | None) -> Iterator[None]:
    """Holds the only slot of a global concurrency limit, created if missing; waits for it without a timeout."""
    if limit is None:
        yield
        return
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit)
        except ObjectNotFound:
            client.upsert_global_concurrency_limit_by_name(limit, 1)
    logger.info("waiting for the limit %r, if another run holds it", limit)
    with concurrency(
        limit, occupy=1, lease_duration=LEASE, strict=True, raise_on_lease_renewal_failure=False
    ):
        yield
