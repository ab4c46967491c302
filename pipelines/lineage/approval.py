"""Who approved the data: a person's name under the validation result, which names the validated bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fra.files import write_json
from fra.validation.verdict import read
from pipelines.project import paths
from pipelines.repo.lock import LineageError


def approve(by: str, root: Path = Path()) -> list[Path]:
    """Writes one record for each data set that was validated: who signed which result off, and when.

    Raises:
        LineageError: no name, no verdict, or one that did not pass.
        ValidationFailed: a verdict was edited.
    """
    if not by.strip():
        raise LineageError("--by is empty: name the person who approves the data")
    files = results(root)
    if not files:
        raise LineageError(f"{root / paths.VALIDATION}: no verdict; run `dvc repro validate`")
    refused = [path.relative_to(root).as_posix() for path in files if not read(path).success]
    if refused:
        raise LineageError(f"{', '.join(refused)}: did not pass; nothing is approved")
    return [write(path, by.strip(), root) for path in files]


def results(root: Path) -> list[Path]:
    """The verdicts that are there: on the set to pre-train on, and on each labelled set."""
    return sorted((root / paths.VALIDATION).glob("**/verdict.json"))


def digest(verdict_file: Path) -> str:
    """The hash over a verdict's content, and by that over the hashes of all validated files."""
    return str(json.loads(verdict_file.read_text(encoding="utf-8"))["digest"])


def write(verdict_file: Path, by: str, root: Path) -> Path:
    verdict = read(verdict_file)
    out = record_of(verdict.dataset, root)
    record = {
        "dataset": verdict.dataset,
        "verdict": verdict_file.relative_to(root).as_posix(),
        "digest": digest(verdict_file),
        "rows": verdict.rows,
        "quarantined": verdict.quarantined,
        "signed_off_by": by,
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(record, out)
    return out


def record_of(dataset: str, root: Path) -> Path:
    return root / paths.APPROVED / f"{dataset}.json"


def of(verdict: dict[str, Any], root: Path) -> dict[str, Any] | None:
    """The approval of a verdict (its content), or None: nobody signed this one off."""
    file = record_of(verdict["dataset"], root)
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return record if record.get("digest") == verdict["digest"] else None


def outdated(root: Path) -> Iterator[tuple[str, str]]:
    """(record, what is off) of every approval of other data than those that are there."""
    digests = {path.relative_to(root).as_posix(): digest(path) for path in results(root)}
    for file in sorted((root / paths.APPROVED).glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if digests.get(record["verdict"]) != record["digest"]:
            yield (
                file.relative_to(root).as_posix(),
                f"{record['signed_off_by']} approved other data than {record['verdict']} judged: "
                "look at the Data Docs, then run `fra data approve`",
            )
