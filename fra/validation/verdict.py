"""The result of validating a data set (`verdict.json`) and the list of quarantined rows (`quarantine.csv`).

Training and transfer only read these files; this module therefore does not import Great Expectations.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import sha256_each, write_json


class ValidationFailed(RuntimeError):
    """The data did not pass validation, or differ from the data that passed; the message names file and remedy."""


@dataclass(frozen=True)
class ValidationResult:
    """Whether a data set passed validation, and for which files that holds.

    Attributes:
        success: Whether the data may be used.
        dataset: The data set's name.
        validated_files: The SHA-256 of each file that was validated, by path.
        rows: Number of rows in the manifest.
        quarantined: Number of rows in the quarantine list.
        limit: The share of rows that may be quarantined, 0 to 1.
        reasons: Why `success` is false; empty where it is true.
        expectations: The outcome of each rule.
        written: The SHA-256 of the files written with the result (quarantine list, profile), by file name.
    """

    success: bool
    dataset: str
    validated_files: dict[str, str]
    rows: int
    quarantined: int
    limit: float
    reasons: list[str]
    expectations: list[dict[str, Any]]
    written: dict[str, str] = field(default_factory=dict)


def digest(content: dict[str, Any]) -> str:
    """Returns the SHA-256 of a result's content: it reveals a later edit, but is no signature."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write(result: ValidationResult, path: Path) -> None:
    """Writes a result together with its digest."""
    content = asdict(result)
    write_json({**content, "digest": digest(content)}, path)


def read(path: Path) -> ValidationResult:
    """Reads a validation result.

    Raises:
        ValidationFailed: The file is missing, is no validation result, or was edited.
    """
    if not path.is_file():
        raise ValidationFailed(f"{path}: missing; the data were not validated: run `dvc repro validate`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected = content.pop("digest")
        result = ValidationResult(**content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValidationFailed(
            f"{path}: not a validation result ({error}): run `dvc repro -f validate`"
        ) from None
    if expected != digest(content):
        raise ValidationFailed(
            f"{path}: edited after it was written (its digest does not match): run `dvc repro -f validate`"
        )
    return result


def check(path: Path, files: list[Path], hashed: bool = True) -> ValidationResult:
    """Returns the result at `path` if the data passed and `files` are the files that were validated.

    Every other validated file and every file written with the result is compared as well where it exists: a result
    holds for the whole data set. (A machine that only trains may have the betons without the shards.)

    Args:
        path: The file `verdict.json`.
        files: Files that the caller is going to read; each must have been validated and must exist.
        hashed: Whether to compare SHA-256 hashes; false where another process of this machine compares them.

    Raises:
        ValidationFailed: The data did not pass, a file was not validated, is missing, or has changed.
    """
    result = read(path)
    if not result.success:
        raise ValidationFailed(f"{path}: the data did not pass validation: {'; '.join(result.reasons)}")
    for file in files:
        if file.as_posix() not in result.validated_files:
            raise ValidationFailed(
                f"{file}: not among the files validated in {path}: run `dvc repro validate`"
            )
        if not file.is_file():
            raise ValidationFailed(f"{file}: missing since it was validated: run `dvc repro shard validate`")
    if not hashed:
        return result
    written = {path.parent / name: value for name, value in result.written.items()}
    known = {Path(name): value for name, value in result.validated_files.items()} | written
    for file, value in sha256_each(file for file in known if file.is_file()).items():
        if value != known[file]:
            raise ValidationFailed(
                f"{file.as_posix()}: changed since it was validated: run `dvc repro -f shard validate`"
            )
    return result


def read_quarantine(path: Path) -> pd.DataFrame:
    """Reads the quarantined rows: key, split, index (-1 for an image in no shard), source, reason.

    Raises:
        ValidationFailed: The file is missing, or is no quarantine list.
    """
    if not path.is_file():
        raise ValidationFailed(f"{path}: missing; the data were not validated: run `dvc repro validate`")
    try:
        return pd.read_csv(path, dtype={"index": "int64"}, keep_default_na=False)
    except (ValueError, OverflowError) as error:  # raised by pandas for a file that is no such table
        raise ValidationFailed(f"{path}: no quarantine list ({error}): run `dvc repro -f validate`") from None
