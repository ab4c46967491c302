"""Approvals: a person's name for a validation result, which names the files that it validated by hash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from fra.files import write_json
from fra.validation.verdict import read as read_verdict
from pipelines.project import paths
from pipelines.repo.lock import LineageError


def approve(by: str, root: Path = Path()) -> list[Path]:
    """Writes one record for each validated data set: who approved which validation result, and when.

    Raises:
        LineageError: no name is given, there is no validation result, or one did not pass.
        ValidationFailed: a validation result was edited.
    """
    if not by.strip():
        raise LineageError("--by is empty: name the person who approves the data")
    files = validation_results(root)
    if not files:
        raise LineageError(f"{root / paths.VALIDATION}: no validation result; run `dvc repro validate`")
    refused = [path.relative_to(root).as_posix() for path in files if not read_verdict(path).success]
    if refused:
        raise LineageError(f"{', '.join(refused)}: did not pass; nothing is approved")
    return [write(path, by.strip(), root) for path in files]


def validation_results(root: Path) -> list[Path]:
    """The validation results in the workspace: of the pre-training set and of each labelled set."""
    return sorted((root / paths.VALIDATION).glob("**/verdict.json"))


def digest(verdict_file: Path) -> str:
    """The hash of a validation result's content, and so of the hashes of all that it validated."""
    return str(json.loads(verdict_file.read_text(encoding="utf-8"))["digest"])


def content_of(verdict_file: Path, root: Path) -> dict[str, Any]:
    """What an approval of this validation result must say, besides who gave it and when."""
    verdict = read_verdict(verdict_file)
    return {
        "dataset": verdict.dataset,
        "verdict": verdict_file.relative_to(root).as_posix(),
        "digest": digest(verdict_file),
        "rows": verdict.rows,
        "quarantined": verdict.quarantined,
    }


def write(verdict_file: Path, by: str, root: Path) -> Path:
    """Writes the approval of one validation result and returns its path."""
    content = content_of(verdict_file, root)
    out = path_of(content["dataset"], root)
    write_json({**content, "signed_off_by": by, "date": datetime.now(UTC).date().isoformat()}, out)
    return out


def path_of(dataset: str, root: Path) -> Path:
    """The path of the approval of a data set."""
    return root / paths.APPROVED / f"{dataset}.json"


def read(file: Path) -> dict[str, Any]:
    """Reads an approval.

    Raises:
        ValueError: the file is not an approval.
    """
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        texts = [record[key] for key in ("dataset", "verdict", "digest", "signed_off_by", "date")]
        numbers = [record[key] for key in ("rows", "quarantined")]
        date.fromisoformat(record["date"])
        complete = all(isinstance(text, str) and text.strip() for text in texts)
        if not complete or not all(isinstance(number, int) for number in numbers):
            raise ValueError("a field is empty")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: not an approval ({error}): run `fra data approve`") from None
    return record


def find(verdict: dict[str, Any], root: Path) -> dict[str, Any] | None:
    """The approval of a validation result (its content); None where it is not approved."""
    file = path_of(verdict["dataset"], root)
    if not file.is_file():
        return None
    try:
        record = read(file)
    except ValueError:
        return None  # `fra lineage verify` reports it
    return record if record["digest"] == verdict["digest"] else None


def problems(root: Path) -> Iterator[tuple[str, str]]:
    """(path, message) of each approval that is malformed, of other data, or differs from the validation result."""
    results = {path.relative_to(root).as_posix(): path for path in validation_results(root)}
    for file in sorted((root / paths.APPROVED).glob("*.json")):
        path = file.relative_to(root).as_posix()
        try:
            record = read(file)
            result = results.get(record["verdict"])
            expected = content_of(result, root) if result else {}
        except (ValueError, RuntimeError) as error:
            yield path, str(error).removeprefix(f"{file}: ")
            continue
        if record["digest"] != expected.get("digest"):
            yield (
                path,
                f"{record['signed_off_by']} approved other data than {record['verdict']} is about: "
                "read the Data Docs, then run `fra data approve`",
            )
        elif odd := [key for key, value in expected.items() if record[key] != value]:
            yield path, f"differs from {record['verdict']} in {', '.join(odd)}"
        elif file.stem != record["dataset"]:
            yield path, f"is about the data set {record['dataset']}"
