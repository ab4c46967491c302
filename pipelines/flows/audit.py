"""A scheduled audit: hashes every artifact and compares it with its record (`fra lineage verify`)."""

from __future__ import annotations

import sys

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from pipelines.orchestration import flow_run
from pipelines.orchestration.workspace import exclusive_workspace


@flow(name="audit", persist_result=False)
def audit() -> State[None] | None:
    """Runs `fra lineage verify`; fails if an artifact differs from its record, which the log then names."""
    log = get_run_logger()
    with flow_run.claimed(), exclusive_workspace(log.info) as workspace:
        result = workspace.run(
            [sys.executable, "-m", "pipelines.cli", "lineage", "verify"],
            lambda line, overwritten: log.info("%s", line),
        )
    if result.code:
        lines = result.output.strip().splitlines()
        return Failed(message=lines[-1] if lines else "`fra lineage verify` failed without a message")
    return None
