"""Re-hashes every artifact and checks that it is what its record says (`fra lineage verify`), on a schedule."""

from __future__ import annotations

import sys

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from pipelines.orchestration.workspace import alone


@flow(name="audit", persist_result=False)
def audit() -> State[None] | None:
    """Fails where an artifact is not what it is said to be; the log names it."""
    log = get_run_logger()
    with alone(log.info) as workspace:
        try:
            ended = workspace.run(
                [sys.executable, "-m", "pipelines.cli", "lineage", "verify"],
                lambda line, again: log.info("%s", line),
            )
        finally:
            workspace.stop()
    if ended.code:
        return Failed(
            message=ended.output.strip().splitlines()[-1] if ended.output.strip() else "lineage verify failed"
        )
    return None
