"""Looks whether the folder of images changed, and says so: the event `fra.data.new` starts the deployment on-new-data.

Others may send the same event (POST /api/events), for instance whatever puts images there.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.events import emit_event
from prefect.states import Completed

from fra.data.records import DatasetConfig, image_files
from pipelines import params, paths

EVENT = "fra.data.new"


def signature(root: Path) -> str:
    """SHA-256 over name, size and time of change of every image below `root`; no image is read."""
    listing = hashlib.sha256()
    for path in image_files(root):
        about = path.stat()
        listing.update(f"{path.relative_to(root)}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return listing.hexdigest()


@flow(name="sensor", persist_result=False)
def sensor(settle: float = 10.0) -> object:
    """Emits `fra.data.new` where `dataset.root` holds other images than at the last look, and nobody writes there.

    Args:
        settle: seconds between two listings that must agree: a folder that is being filled waits for the next look.
    """
    log = get_run_logger()
    config = params.section("dataset", DatasetConfig)
    if config.root is None:
        return Completed(message=f"{config.name} comes with the project: nothing to watch (dataset.root is not set).")
    root = Path(config.root).expanduser()
    seen = paths.WORK / "seen" / f"{config.name}.sha256"
    now = signature(root)
    if seen.is_file() and seen.read_text(encoding="utf-8") == now:
        return Completed(message="Nothing new.")
    time.sleep(settle)
    if signature(root) != now:
        return Completed(message="Still being written: looked at again next time.")
    emit_event(EVENT, resource={"prefect.resource.id": f"fra.data.{config.name}", "prefect.resource.name": config.name})
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.write_text(now, encoding="utf-8")
    log.info("%s: other images than before", root)
    return Completed(message="New images.")
