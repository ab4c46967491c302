"""Looks whether the folder of images changed, and says so: the event `fra.data.new` starts the deployment on-new-data.

Others may send the same event (POST /api/events), for instance whatever puts images there.
"""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.events import emit_event
from prefect.states import Completed

from fra.data.datasets.records import DatasetConfig
from pipelines import params
from pipelines.orchestration import fingerprint

EVENT = "fra.data.new"


@flow(name="sensor", persist_result=False)
def sensor(settle: float = 10.0) -> object:
    """Emits `fra.data.new` where `dataset.root` holds other images than at the last look, and nobody writes there.

    Args:
        settle: seconds between two listings that must agree: a folder that is being filled waits for the next look.
    """
    log = get_run_logger()
    config = params.section("dataset", DatasetConfig)
    if config.root is None:
        return Completed(
            message=f"{config.name} comes with the project: nothing to watch (dataset.root is not set)."
        )
    root = Path(config.root).expanduser()
    now = fingerprint.signature(root)
    if fingerprint.is_known(f"{config.name}.announced", now):
        return Completed(message="Nothing new.")
    time.sleep(settle)
    if fingerprint.signature(root) != now:
        return Completed(message="Still being written: looked at again next time.")
    emit_event(
        EVENT,
        resource={"prefect.resource.id": f"fra.data.{config.name}", "prefect.resource.name": config.name},
    )
    fingerprint.note(f"{config.name}.announced", now)
    log.info("%s: other images than before", root)
    return Completed(message="New images.")
