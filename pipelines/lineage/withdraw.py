"""Withdraws a person: writes the record that `ingest` obeys, deletes caches, and lists what cannot be deleted here."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fra.files import write_json
from pipelines import params
from pipelines.lineage.impact import impact
from pipelines.project import paths
from pipelines.project.dataset import read_withdrawal, withdrawal_files
from pipelines.repo.lock import LineageError, contains, read

CACHES = (paths.WORK / "features", paths.WORK / "checkpoints")
"""Folders that may hold features of a person, or weights trained on them; stages make them again."""
UNTRACKED = ("artifacts", "data/baselines")
"""Folders in which a file that no stage wrote may have been made from a person's images."""


def withdraw(person: str, by: str, root: Path = Path()) -> list[Path]:
    """Writes one record for each data set with images of `person`: who, when, and every artifact that is now stale.

    The record has no hash of an image.

    Args:
        person: as in the manifest.
        by: the name of whoever authorises the withdrawal.
        root: the project.

    Raises:
        LineageError: `by` is empty, no data set has the person, or the person is withdrawn already.
    """
    if not by.strip():
        raise LineageError("--by is empty: name the person who authorises the withdrawal")
    earlier = {record["dataset"]: record for record in records_of(person, root)}
    try:
        datasets = impact("person", person, root)["datasets"]
    except LineageError:
        if not earlier:
            raise
        datasets = {}
    written = []
    for name, found in datasets.items():
        if name in earlier:
            continue
        file = root / paths.WITHDRAWN / name / file_name(person)
        record = {
            "person": person,
            "dataset": name,
            "images": len(found["images"]),
            "signed_off_by": by.strip(),
            "date": datetime.now(UTC).date().isoformat(),
            "shards": found["shards"],
            "stale": found["artifacts"],
            "stale_experiments": {run["run"]: run["artifacts"] for run in found["experiments"]},
        }
        write_json(record, file)
        written.append(file)
    if not written:
        known = "; ".join(
            f"from {name} on {record['date']} by {record['signed_off_by']}"
            for name, record in earlier.items()
        )
        raise LineageError(
            f"{person} is already withdrawn, {known}; `dvc repro` makes the artifacts without them"
        )
    return written


def records_of(person: str, root: Path) -> list[dict[str, Any]]:
    """The earlier withdrawals of a person."""
    return [
        record for file in withdrawal_files(root) if (record := read_withdrawal(file))["person"] == person
    ]


def file_name(person: str) -> str:
    """The name of a person's record. Where letters must be replaced, a hash keeps names of several people apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", person)
    suffix = "" if plain == person else f"-{hashlib.sha256(person.encode()).hexdigest()[:8]}"
    return f"{plain[:80]}{suffix}.json"


def delete_caches(root: Path = Path()) -> list[str]:
    """Deletes cached features and checkpoints, and returns what was deleted: files and folders, by path."""
    deleted = []
    for folder in CACHES:
        for path in sorted((root / folder).glob("*")):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            deleted.append(path.relative_to(root).as_posix())
    return deleted


def leftovers(record: dict[str, Any], root: Path = Path()) -> list[str]:
    """What may still hold images of the person or what was made from them, one line each with the remedy."""
    found = [
        "DVC's cache and its remotes keep earlier objects: `dvc gc --workspace` removes those that no stage uses "
        "(with --cloud in the remote)"
    ]
    found += [
        f"experiment {name}: `dvc exp remove {name}`, then `dvc gc`"
        for name in record.get("stale_experiments", {})
    ]
    temporary = root / ".dvc/tmp/exps"
    for folder in sorted(path for path in temporary.glob("*") if path.is_dir()):
        if folder.name == "celery":
            found.append(f"{shown(folder, root)}: DVC's queue of experiments: `dvc queue remove --all`")
        elif folder.name not in ("cache", "run"):
            found.append(
                f"{shown(folder, root)}: the folder of an experiment: delete it once the experiment has ended"
            )
    stages = read(root)
    outs = [out for stage in stages.values() for out in stage.outs]
    for top in UNTRACKED:
        for file in sorted(file for file in (root / top).rglob("*") if file.is_file()):
            path = shown(file, root)
            derived = top == "artifacts" or file.suffix == ".safetensors"
            if derived and not any(contains(out, path) for out in outs):
                found.append(f"{path}: made by no stage: make it again or delete it")
    values = params.read(root / "params.yaml")
    cache = Path(str(values.get("transfer", {}).get("cache", CACHES[0])))
    if cache not in CACHES and (root / cache).exists():
        found.append(f"{cache}: transfer.cache, outside of {paths.WORK}: delete its files")
    sources = {"dataset": values.get("dataset"), **values.get("benchmarks", {})}
    for section in sources.values():
        if isinstance(section, dict) and section.get("name") == record["dataset"] and section.get("root"):
            found.append(f"{section['root']}: your own images, which are never changed")
    found.append("copies elsewhere: exported weights, embeddings, published pages")
    return found


def shown(path: Path, root: Path) -> str:
    """A path relative to the project."""
    return path.relative_to(root).as_posix()


def repeat_data_stages(record: dict[str, Any]) -> int:
    """Runs the data stages of the record's data set again through DVC; returns the exit code."""
    name = record["dataset"]
    primary = str(params.read()["dataset"]["name"])
    stages = ["ingest", "shard", "validate"] if name == primary else [f"benchmark@{name}"]
    return subprocess.run([sys.executable, "-m", "dvc", "repro", "-s", *stages], check=False).returncode
