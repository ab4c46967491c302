"""Judges a data set: measures, tables, rules; then verdict, quarantine list, profile and Data Docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fra.data.loader import inspect
from fra.data.loader.config import DataConfig
from fra.data.views.views import ViewsConfig
from fra.files import atomic, sha256, write_json
from fra.validation import drift, manifest, measure, tables
from fra.validation.config import ValidateConfig
from fra.validation.manifest import Manifest
from fra.validation.measure import Measures
from fra.validation.page import docs
from fra.validation.results import Found, Words, judge_tables
from fra.validation.rules.rule import Rule, Table
from fra.validation.rules.suite import suite
from fra.validation.tables import NOBODY, Others
from fra.validation.verdict import Verdict, write

EXAMPLES = 5
SEED = 0
Training = tuple[DataConfig, ViewsConfig]
"""The settings with which a network will see a set."""


@dataclass(frozen=True)
class Set:
    """A data set on disk."""

    name: str
    manifest: Path
    shards: Path
    betons: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Case:
    """What is judged: a set, its manifest and measures; `judged` has the SHA-256 of every file that this came from.

    `reference` is the profile of an earlier version, if there is one; `others` are test images of other sets.
    """

    data: Set
    listed: Manifest
    measured: Measures
    judged: dict[str, str] = field(default_factory=dict)
    reference: dict[str, Any] | None = None
    others: Others = NOBODY


def judge(
    data: Set,
    out: Path,
    config: ValidateConfig,
    *,
    held_out: Sequence[Set] = (),
    training: Training | None = None,
    workers: int = 0,
) -> tuple[Verdict, pd.DataFrame]:
    """Judges a data set and writes `out/{verdict.json, quarantine.csv, profile.json, data_docs/}`.

    `held_out` are other sets, whose test images must not be among these; `training` says how a network will see this
    set, if it will be trained on. Returns the verdict and the quarantine list.

    Raises:
        FileNotFoundError, ValueError: the manifest, the reference or the own rules cannot be read.
    """
    listed = manifest.read(data.manifest)
    rules = suite(config, listed.labels)
    reference = drift.read(Path(config.reference), data.name)
    measured = measure.measure(listed, data.shards, list(data.betons), workers)
    files = [data.manifest, data.shards / "index.json", Path(config.reference), Path(config.expectations)]
    files += [other.shards / "index.json" for other in held_out]
    judged = measured.digests | {file.as_posix(): sha256(file) for file in files if file.is_file()}
    others = tables.together([test_images(other, workers) for other in held_out])
    return decide(Case(data, listed, measured, judged, reference, others), rules, out, config, training)


def test_images(other: Set, workers: int) -> Others:
    """Hashes of the test images of another data set. Raises ValueError for a manifest that cannot be read."""
    listed = manifest.read(other.manifest)
    rows = np.flatnonzero(((listed.table["split"] == "test") & listed.table["shard"].notna()).to_numpy(bool))
    hashes, readable = measure.hash_images(listed.table.iloc[rows], other.shards, workers)
    table = listed.table.iloc[rows[readable]]
    names = [f"{other.name}/{source}" for source in table["source"]]
    return Others(table["sha256"].to_numpy(dtype=object), hashes[readable], names)


def decide(
    case: Case, rules: list[Rule], out: Path, config: ValidateConfig, training: Training | None = None
) -> tuple[Verdict, pd.DataFrame]:
    """From measures to verdict, quarantine list, profile and Data Docs, which are written to `out`."""
    images = tables.images(case.listed, case.measured, config, case.others)
    profile = drift.profile(images)
    frames: dict[Table, pd.DataFrame] = {
        "columns": tables.columns(case.listed),
        "images": images,
        "labels": tables.labels(images),
        "files": tables.files(case.measured),
    }
    if case.reference is not None:
        frames["drift"] = drift.compare(profile, case.reference, config.max_drift)
    words = Words(frames, case.others.sources)
    findings = judge_tables(frames, rules)
    aside = quarantine(images, findings, words)
    if training is not None and not any(stops(found) for found in findings):
        frames["batches"] = first_batch(case, training, images, aside)
        late = judge_tables(frames, [rule for rule in rules if rule.table == "batches"])
        findings = [found for found in findings if found.rule.table != "batches"] + late
    with atomic(out / "quarantine.csv") as partial:
        aside.to_csv(partial, index=False)
    write_json({case.data.name: profile}, out / "profile.json")
    written = {name: sha256(out / name) for name in ("quarantine.csv", "profile.json")}
    verdict = conclude(case, findings, aside, words, config.max_quarantined, written)
    docs.write(out / docs.SITE, verdict, findings, words, aside, case.data.shards)
    write(verdict, out / "verdict.json")  # last: where it is, everything is
    return verdict, aside


def stops(found: Found) -> bool:
    """Whether nothing may be trained on the data."""
    return found.rule.severity == "error" and not found.success


def quarantine(images: pd.DataFrame, findings: list[Found], words: Words) -> pd.DataFrame:
    """The rows to set aside (key, split, index, source, reason), each with every reason that applies."""
    reasons: dict[int, list[str]] = {}
    for found in findings:
        if found.rule.severity == "quarantine" and found.rule.table == "images":
            for row in found.rows.tolist():
                reason = words.reason(found.rule, row)
                if reason not in reasons.setdefault(row, []):
                    reasons[row].append(reason)
    chosen = sorted(reasons)
    aside = images.loc[chosen, ["key", "split", "index", "source"]]
    return aside.assign(reason=["; ".join(reasons[row]) for row in chosen]).sort_values("key")


def first_batch(case: Case, training: Training, images: pd.DataFrame, aside: pd.DataFrame) -> pd.DataFrame:
    """The views of the first batch that a network will see; an empty table where nothing is left to train on."""
    train = aside["split"] == "train"
    exclude = frozenset(int(index) for index in aside.loc[train & (aside["index"] >= 0), "index"])
    count = int(((images["split"] == "train") & images["shard"].notna()).sum())
    if count <= len(exclude):
        return pd.DataFrame()
    facts = inspect.facts(*training, case.data.shards, exclude, count, SEED)
    return tables.batches(facts, images)


def conclude(
    case: Case,
    findings: list[Found],
    aside: pd.DataFrame,
    words: Words,
    limit: float,
    written: dict[str, str],
) -> Verdict:
    """The verdict: what was judged, whether it passed, why not, and what each rule found."""
    rows = len(case.listed.table)
    reasons = [f"{found.rule.name}: {words.summary(found, EXAMPLES)}" for found in findings if stops(found)]
    if len(aside) > limit * rows:
        few = "; ".join(f"{row.source}: {row.reason}" for row in aside.head(EXAMPLES).itertuples())
        reasons.append(
            f"{len(aside)} of {rows} images would be set aside, more than validate.max_quarantined "
            f"{limit:.1%} ({few})"
        )
    return Verdict(
        success=not reasons,
        dataset=case.data.name,
        judged=dict(sorted(case.judged.items())),
        written=written,
        rows=rows,
        quarantined=len(aside),
        limit=limit,
        reasons=reasons,
        expectations=[entry(found, words) for found in findings],
    )


def entry(found: Found, words: Words) -> dict[str, Any]:
    """What a rule found, as the verdict keeps it."""
    examples = words.examples(found, EXAMPLES)
    return {
        "name": found.rule.name,
        "table": found.rule.table,
        "severity": found.rule.severity,
        "reason": found.rule.reason,
        "success": found.success,
        "judged": found.judged,
        "unexpected_count": len(found.rows),
        "examples": [source for source, _ in examples],
        "explanations": [reason for _, reason in examples],
    }
