"""Runs a stage: as plain Python, or as a Prefect flow where a server is configured (`PREFECT_API_URL`).

A stage is a function without arguments. Starting Prefect's own temporary server for each would cost 9 to 20 s, so
without a server nothing of Prefect is imported.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

RESUME_ME = 75
"""Exit code of a run that was told to stop, saved its state, and continues when started again (EX_TEMPFAIL)."""
PARENT = "FRA_PARENT_TASK_RUN"
"""Environment variable by which the parent flow hands its task run's id to the stage's process."""

logger = logging.getLogger("fra")


def main(stage: Callable[[], None]) -> None:
    """Runs `stage` and ends the process: 0, or 1 with one line that says what is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if os.environ.get("PREFECT_API_URL"):
            as_flow(stage)
        else:
            stage()
    except Exception as error:
        if os.environ.get("FRA_DEBUG"):
            raise
        print(f"error: {stage.__name__}: {describe(error)}", file=sys.stderr)
        sys.exit(1)


def describe(error: BaseException) -> str:
    """An exception in one line; exceptions that we raise on purpose speak for themselves."""
    text = " ".join(str(error).split())
    ours = isinstance(error, (ValueError, FileNotFoundError, RuntimeError, KeyError, MemoryError))
    return text if ours and text else f"{type(error).__name__}: {text} (set FRA_DEBUG=1 for the traceback)"


def as_flow(stage: Callable[[], None]) -> None:
    """Runs `stage` as a flow run of the configured server, below the parent flow's task run if there is one."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    stage_flow = flow(stage, name=stage.__name__, log_prints=True)
    parent = os.environ.get(PARENT)
    if parent is None:
        stage_flow()
        return
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(stage_flow, parent_task_run_id=parent)
    run_flow(stage_flow, flow_run=run)
