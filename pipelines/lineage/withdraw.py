"""Takes a person out of the data: a record in `data/withdrawn`, which `ingest` obeys, of what is stale by it."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fra.files import write_json
from pipelines.lineage.impact import made_from
from pipelines.project import paths


def withdraw(person: str, by: str, root: Path = Path()) -> list[Path]:
    """Writes one record for each data set that holds pictures of `person`: who, when, and every artifact now stale.

    No hash of a picture is kept. `by` is who signs the withdrawal off.

    Raises:
        LineageError: no data set knows the person.
    """
    written = []
    for name, found in made_from("person", person, root)["datasets"].items():
        file = root / paths.WITHDRAWN / name / f"{re.sub(r'[^A-Za-z0-9_-]', '_', person)}.json"
        write_json(
            {
                "person": person,
                "dataset": name,
                "images": len(found["images"]),
                "signed_off_by": by,
                "date": datetime.now(UTC).date().isoformat(),
                "shards": found["shards"],
                "stale": found["artifacts"],
                "stale_experiments": {run["run"]: run["artifacts"] for run in found["experiments"]},
            },
            file,
        )
        written.append(file)
    return written


def reshard(record: dict[str, Any]) -> int:
    """Lists, shards and validates the record's data set again, through DVC; the exit code."""
    name = record["dataset"]
    stages = ["ingest", "shard", "validate"] if name == primary() else [f"benchmark@{name}"]
    return subprocess.run([sys.executable, "-m", "dvc", "repro", "-s", *stages], check=False).returncode


def primary() -> str:
    from pipelines import params

    return str(params.read()["dataset"]["name"])
