"""The gate's verdict: what was judged (by hash), whether it passed, and what was set aside.

Kept apart from the judging (which needs Great Expectations): training only reads verdicts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import sha256_each, write_json


class GateError(RuntimeError):
    """The data did not pass, or are not the data that passed; the message names the file and the remedy."""


@dataclass(frozen=True)
class Verdict:
    """`judged` maps each file to its SHA-256; `reasons` says why `success` is false; `expectations` has a rule each.

    `written` maps the files beside the verdict (the quarantine list, the profile) to their SHA-256.
    """

    success: bool
    dataset: str
    judged: dict[str, str]
    rows: int
    quarantined: int
    limit: float
    reasons: list[str]
    expectations: list[dict[str, Any]]
    written: dict[str, str] = field(default_factory=dict)


def seal(content: dict[str, Any]) -> str:
    """SHA-256 of a verdict's content: shows an edit by hand (it is no signature)."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write(verdict: Verdict, path: Path) -> None:
    """Writes the verdict with its seal."""
    content = asdict(verdict)
    write_json({**content, "seal": seal(content)}, path)


def read(path: Path) -> Verdict:
    """Reads a verdict. Raises `GateError` where there is none, or it was edited."""
    if not path.is_file():
        raise GateError(f"{path}: no verdict; the data were not validated: run `dvc repro validate`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        given = content.pop("seal")
        verdict = Verdict(**content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GateError(f"{path}: not a verdict ({error}): run `dvc repro -f validate`") from None
    if given != seal(content):
        raise GateError(
            f"{path}: edited after it was written (its seal does not fit): run `dvc repro -f validate`"
        )
    return verdict


def check(path: Path, files: list[Path], hashed: bool = True) -> Verdict:
    """The verdict at `path`, if it passed and judged these very `files`.

    All else that it judged, and what was written with it, is compared too as far as it is here: a verdict holds for the
    whole set. (A machine that only trains need not have the shards beside the betons.) Without `hashed`, files are
    taken for what they were: another process of this machine compares them.

    Raises:
        GateError: it failed, never saw a file, or a file changed since.
    """
    verdict = read(path)
    if not verdict.success:
        raise GateError(f"{path}: the data did not pass: {'; '.join(verdict.reasons)}")
    for file in files:
        if file.as_posix() not in verdict.judged:
            raise GateError(f"{file}: not among what {path} judged: run `dvc repro validate`")
        if not file.is_file():
            raise GateError(f"{file}: gone since it was validated: run `dvc repro shard validate`")
    if not hashed:
        return verdict
    beside = {path.parent / name: digest for name, digest in verdict.written.items()}
    known = {Path(name): digest for name, digest in verdict.judged.items()} | beside
    for file, digest in sha256_each(file for file in known if file.is_file()).items():
        if digest != known[file]:
            raise GateError(
                f"{file.as_posix()}: changed since it was validated: run `dvc repro -f shard validate`"
            )
    return verdict


def set_aside(quarantine: Path) -> pd.DataFrame:
    """The rows that were set aside: key, split, index (-1: in no shard), source, reason.

    Raises:
        GateError: there is no such list, or the file is none.
    """
    if not quarantine.is_file():
        raise GateError(f"{quarantine}: not there; the data were not validated: run `dvc repro validate`")
    try:
        return pd.read_csv(quarantine, dtype={"index": "int64"}, keep_default_na=False)
    except (ValueError, OverflowError) as error:  # what pandas makes of a file that is no such table
        raise GateError(f"{quarantine}: no quarantine list ({error}): run `dvc repro -f validate`") from None
