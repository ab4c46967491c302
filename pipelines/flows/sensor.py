"""A scheduled sensor: emits the event `fra.data.new`, which starts the deployment on-new-data, if images changed.

Other programs may send the same event (POST /api/events), for instance the one that copies the images.
"""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from fra.data.datasets.records import DatasetConfig
from pipelines import params
from pipelines.orchestration import fingerprint, flow_run

EVENT = "fra.data.new"


@flow(name="sensor", persist_result=False)
def sensor(settle: float = 10.0) -> State[None]:
    """Emits `fra.data.new` if the files in `dataset.root` changed since the last event, and are complete.

    Args:
        settle: seconds between two fingerprints that must be equal; a folder that is being filled waits for the next
            run of this flow.
    """
    with flow_run.claimed():
        return announce_changes(settle)


def announce_changes(settle: float) -> State[None]:
    """Compares the fingerprint of `dataset.root` with that of the last event; emits another event if it changed."""
    config = params.section("dataset", DatasetConfig)
    if config.root is None:
        return Completed(
            message=f"{config.name} comes with the project: nothing to watch (dataset.root is not set)."
        )
    root = Path(config.root).expanduser()
    current = fingerprint.of_folder(root)
    if fingerprint.is_stored(f"{config.name}.announced", current):
        return Completed(message="Nothing new.")
    time.sleep(settle)
    if fingerprint.of_folder(root) != current:
        return Completed(message="Files are still being written: checked again by the next run.")
    emit_event(
        EVENT,
        resource={"prefect.resource.id": f"fra.data.{config.name}", "prefect.resource.name": config.name},
    )
    fingerprint.store(f"{config.name}.announced", current)
    get_run_logger().info("%s: its files changed", root)
    return Completed(message="New images.")
