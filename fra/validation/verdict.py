"""What validation hands to later stages: `verdict.json`, `quarantine.csv`, and the rows that may be used.

No other module decides which rows of a manifest may be used. It does not import Great Expectations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fra.files import atomic, read_csv, read_parquet, sha256_each, write_json

if TYPE_CHECKING:
    import pandas as pd

QUARANTINE_TYPES = {"key": "str", "split": "str", "index": "int64", "source": "str", "reason": "str"}
"""The columns of `quarantine.csv`; `index` is -1 for an image in no shard."""


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
        photographs: Number of photographs that faces were cropped from; 0 for a set that was not searched for faces.
        without_face: Number of quarantined rows that are photographs without a face, and nothing else is wrong with.
        limit_without_face: The share of the photographs that may be without a face, 0 to 1.
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
    photographs: int = 0
    without_face: int = 0
    limit_without_face: float = 1.0


def exclusions(result: Mapping[str, Any]) -> str:
    """Returns in words how many images and photographs a result excludes, and how many may be.

    Args:
        result: The content of `verdict.json`, or the attributes of a `ValidationResult`.
    """
    missing, photographs = result.get("without_face", 0), result.get("photographs", 0)
    text = f"{result['quarantined'] - missing:,} quarantined (at most {result['limit']:.1%} may be)"
    if not photographs:
        return text
    return (
        f"{text}; {missing:,} of {photographs:,} photographs without a face "
        f"(at most {result['limit_without_face']:.1%} may be)"
    )


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


def write_quarantine(rows: pd.DataFrame, path: Path) -> None:
    """Writes the quarantined rows, sorted by key."""
    with atomic(path) as partial:
        rows[list(QUARANTINE_TYPES)].sort_values("key").to_csv(partial, index=False)


def read_quarantine(path: Path) -> pd.DataFrame:
    """Reads the quarantined rows, with the columns of `QUARANTINE_TYPES`.

    Raises:
        ValidationFailed: The file is missing, or is no quarantine list.
    """
    if not path.is_file():
        raise ValidationFailed(f"{path}: missing; the data were not validated: run `dvc repro validate`")
    try:
        return read_csv(path, QUARANTINE_TYPES)
    except ValueError as error:
        raise ValidationFailed(f"{path}: no quarantine list ({error}): run `dvc repro -f validate`") from None


def read_quarantined_keys(path: Path) -> frozenset[str]:
    """Reads the keys of the quarantined rows.

    Raises:
        ValidationFailed: The file is missing, or is no quarantine list.
    """
    return frozenset(read_quarantine(path)["key"])


def quarantined_indices(rows: pd.DataFrame, split: str) -> frozenset[int]:
    """Returns the indices, within a split, of the quarantined rows whose images are in its shards."""
    return frozenset(
        int(index) for index in rows.loc[(rows["split"] == split) & (rows["index"] >= 0), "index"]
    )


def usable_rows(
    manifest: pd.DataFrame, quarantined: Set[str], splits: Collection[str] | None = None
) -> pd.DataFrame:
    """Returns the rows of a manifest that may be used for training, evaluation and display, numbered from 0.

    These are the rows whose image is in a shard and that validation did not quarantine.

    Args:
        manifest: Rows with the columns key, shard and split.
        quarantined: Keys of the quarantined rows, see `read_quarantined_keys`.
        splits: Splits to select; None for all.
    """
    keep = manifest["shard"].notna() & ~manifest["key"].isin(quarantined)
    if splits is not None:
        keep &= manifest["split"].isin(splits)
    return manifest[keep].reset_index(drop=True)


def read_usable_rows(
    manifest: Path, quarantined: Set[str], splits: Collection[str] | None = None
) -> pd.DataFrame:
    """Reads the rows of a manifest file that may be used, see `usable_rows`.

    Raises:
        FileNotFoundError: The manifest is missing.
        ValueError: It is damaged.
    """
    if not manifest.is_file():
        raise FileNotFoundError(
            f"{manifest}: no such manifest; run the stages ingest and shard of that set first"
        )
    return usable_rows(read_parquet(manifest), quarantined, splits)
