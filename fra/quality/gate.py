"""Runs the rules with Great Expectations, and writes verdict, quarantine list, profile and Data Docs."""

from __future__ import annotations

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when great_expectations is imported

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data import inspect_batches
from fra.data.files import atomic, sha256, write_json
from fra.data.loader import DataConfig
from fra.data.views import ViewsConfig
from fra.quality import drift, manifest, measure, tables
from fra.quality.expectations import TABLES, Rule, ValidateConfig, suite
from fra.quality.page import docs
from fra.quality.tables import Others
from fra.quality.verdict import Verdict, write

EXAMPLES = 5
SEED = 0


@dataclass(frozen=True)
class Found:
    """What a rule found: the rows that break it (none for rules on a table as a whole).

    `judged` is false where its table is not there: no reference to drift from, no batch of a set that is not trained on.
    """

    rule: Rule
    success: bool
    rows: NDArray[np.int64]
    judged: bool
    result: Any = None


@dataclass(frozen=True)
class Set:
    """A data set on disk."""

    name: str
    manifest: Path
    shards: Path
    betons: tuple[Path, ...] = ()


def run(frames: dict[str, pd.DataFrame], rules: list[Rule]) -> list[Found]:
    """Judges each table by its rules; in the order of `rules`.

    Raises:
        ValueError: a rule names a column that its table does not have, or cannot be evaluated.
    """
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it tells of temporary folders
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("gate")
    found: dict[str, Found] = {}
    for name in TABLES:
        chosen = [rule for rule in rules if rule.table == name]
        frame = frames.get(name)
        if frame is None or not len(frame):
            found |= {rule.name: Found(rule, True, np.empty(0, np.int64), False) for rule in chosen}
            continue
        for rule in chosen:
            rule.expectation.meta = {"rule": rule.name, "severity": rule.severity}
            rule.expectation.notes = f"**{rule.name}** ({rule.severity}): fails where {rule.reason}."
        batch = (
            source.add_dataframe_asset(name)
            .add_batch_definition_whole_dataframe("all")
            .get_batch({"dataframe": frame})
        )
        result = batch.validate(
            gx.ExpectationSuite(name=name, expectations=[rule.expectation for rule in chosen]),
            result_format={
                "result_format": "COMPLETE",
                "partial_unexpected_count": EXAMPLES,
                "exclude_unexpected_values": True,
                "return_unexpected_index_query": False,
            },
        )
        outcomes = {outcome.expectation_config.meta["rule"]: outcome for outcome in result.results}
        found |= {rule.name: one(rule, outcomes[rule.name]) for rule in chosen}
    return [found[rule.name] for rule in rules]


def one(rule: Rule, outcome: Any) -> Found:
    """Great Expectations' result of one rule, in our words."""
    if not outcome.success and not outcome.result:
        problem = " ".join(str(outcome.exception_info).split())[:500]
        raise ValueError(
            f"the rule {rule.name!r} could not be evaluated on the table {rule.table!r}: {problem}"
        )
    rows = np.unique(np.asarray(outcome.result.get("unexpected_index_list") or [], dtype=np.int64))
    return Found(rule, bool(outcome.success), rows, True, outcome)


def explainer(frames: dict[str, pd.DataFrame], others: Others | None) -> Callable[[Rule, int], str]:
    """A function (rule, row) → what is wrong with that row, in words."""

    def explain(rule: Rule, row: int) -> str:
        if not rule.tell:
            return rule.reason
        value = frames[rule.table][rule.tell].iat[row]
        if pd.isna(value):
            return rule.reason
        if rule.tell == "like_test_of_other_set" and others is not None:
            return f"{rule.reason}: {others.sources[int(value)]}"
        if rule.tell.startswith(("same_", "like_")):
            return f"{rule.reason}: {frames[rule.table]['source'].iat[int(value)]}"
        if rule.tell == "error":
            return str(value)
        if isinstance(value, (float, np.floating)):
            value = f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
        return f"{rule.reason} ({value})"

    return explain


def quarantine(
    table: pd.DataFrame, findings: list[Found], explain: Callable[[Rule, int], str]
) -> pd.DataFrame:
    """The rows to set aside (key, split, index, source, reason), each with every reason that applies."""
    reasons: dict[int, list[str]] = {}
    for found in findings:
        if found.rule.severity == "quarantine" and found.rule.table == "images":
            for row in found.rows:
                reason = explain(found.rule, row)
                if reason not in reasons.setdefault(int(row), []):
                    reasons[int(row)].append(reason)
    chosen = sorted(reasons)
    aside = table.loc[chosen, ["key", "split", "index", "source"]]
    return aside.assign(reason=["; ".join(reasons[row]) for row in chosen]).sort_values("key")


def test_images(other: Set, workers: int = 0) -> Others:
    """Hashes of the test images of another data set. Raises ValueError for a manifest that cannot be read."""
    listed = manifest.read(other.manifest)
    measured = measure.measure(listed, other.shards, [], workers)
    held = (listed.table["split"] == "test") & (measured.images["readable"] == 1)
    rows = np.flatnonzero(held.to_numpy(dtype=bool))
    table = listed.table.iloc[rows]
    return Others(
        table["sha256"].to_numpy(dtype=object),
        measured.hashes[rows],
        [f"{other.name}/{source}" for source in table["source"]],
    )


def judge(
    data: Set,
    out: Path,
    config: ValidateConfig,
    *,
    held_out: Set | None = None,
    batches: tuple[DataConfig, ViewsConfig] | None = None,
    workers: int = 0,
) -> tuple[Verdict, pd.DataFrame]:
    """Judges a data set and writes `out/{verdict.json, quarantine.csv, profile.json, data_docs/}`.

    `held_out` is another set whose test images must not be among these; `batches` are the settings with which a network
    will see this set, if it will be trained on. Returns the verdict and the quarantine list.

    Raises:
        FileNotFoundError, ValueError: the manifest, the reference or the own rules cannot be read.
    """
    listed = manifest.read(data.manifest)
    labels = [name for name in listed.table.columns if name.startswith("label.")]
    rules = suite(config, labels)
    reference = drift.read(Path(config.reference), data.name)
    measured = measure.measure(listed, data.shards, list(data.betons), workers)
    others = None if held_out is None else test_images(held_out, workers)
    judged = dict(measured.digests)
    files = [data.manifest, data.shards / "index.json", Path(config.reference), Path(config.expectations)]
    if held_out is not None:
        files.append(held_out.shards / "index.json")
    judged |= {file.as_posix(): sha256(file) for file in files if file.is_file()}
    return decide(data, listed, measured, rules, reference, others, batches, out, config, judged)


def decide(
    data: Set,
    listed: manifest.Manifest,
    measured: measure.Measures,
    rules: list[Rule],
    reference: dict[str, Any] | None,
    others: Others | None,
    batches: tuple[DataConfig, ViewsConfig] | None,
    out: Path,
    config: ValidateConfig,
    judged: dict[str, str],
) -> tuple[Verdict, pd.DataFrame]:
    """From measures to verdict, quarantine list, profile and Data Docs; `judged` are the hashes of what was measured."""
    table = tables.images(listed, measured, config, others)
    profile = drift.profile(table)
    frames = {
        "columns": tables.columns(listed),
        "images": table,
        "labels": tables.labels(table),
        "files": tables.files(measured),
    }
    if reference is not None:
        frames["drift"] = drift.compare(profile, reference, config.max_drift)
    explain = explainer(frames, others)
    findings = run(frames, [rule for rule in rules if rule.table != "batches"])
    aside = quarantine(table, findings, explain)
    sound = not any(found.rule.severity == "error" and not found.success for found in findings)
    late = [rule for rule in rules if rule.table == "batches"]
    train = aside["split"] == "train"
    exclude = frozenset(int(index) for index in aside.loc[train & (aside["index"] >= 0), "index"])
    images = int(((table["split"] == "train") & table["shard"].notna()).sum())
    if batches is not None and sound and images > len(exclude):
        facts = inspect_batches.facts(*batches, data.shards, exclude, images, SEED)
        frames["batches"] = tables.batches(facts, table)
    by_name = {found.rule.name: found for found in [*findings, *run(frames, late)]}
    findings = [by_name[rule.name] for rule in rules]

    def examples(found: Found, count: int) -> list[tuple[str, str]]:
        """(source, what is wrong) of the first rows that break a rule."""
        return [
            (str(frames[found.rule.table]["source"].iat[row]), explain(found.rule, row))
            for row in found.rows[:count]
        ]

    reasons = [
        f"{found.rule.name}: "
        + ("; ".join(f"{source}: {why}" for source, why in examples(found, EXAMPLES)) or found.rule.reason)
        + (f"; and {len(found.rows) - EXAMPLES:,} more" if len(found.rows) > EXAMPLES else "")
        for found in findings
        if not found.success and found.rule.severity == "error"
    ]
    if len(aside) > config.max_quarantined * len(table):
        few = "; ".join(f"{row.source}: {row.reason}" for row in aside.head(EXAMPLES).itertuples())
        reasons.append(
            f"{len(aside)} of {len(table)} images would be set aside, more than validate.max_quarantined "
            f"{config.max_quarantined:.1%} ({few})"
        )
    with atomic(out / "quarantine.csv") as partial:
        aside.to_csv(partial, index=False)
    write_json({data.name: profile}, out / "profile.json")
    verdict = Verdict(
        success=not reasons,
        dataset=data.name,
        judged=dict(sorted(judged.items())),
        written={name: sha256(out / name) for name in ("quarantine.csv", "profile.json")},
        rows=len(table),
        quarantined=len(aside),
        limit=config.max_quarantined,
        reasons=reasons,
        expectations=[
            {
                "name": found.rule.name,
                "table": found.rule.table,
                "severity": found.rule.severity,
                "reason": found.rule.reason,
                "success": found.success,
                "judged": found.judged,
                "unexpected_count": len(found.rows),
                "examples": [source for source, _ in examples(found, EXAMPLES)],
                "explanations": [why for _, why in examples(found, EXAMPLES)],
            }
            for found in findings
        ],
    )
    docs.write(out / docs.SITE, verdict, findings, frames, aside, data.shards, explain)
    write(verdict, out / "verdict.json")  # last: where it is, everything is
    return verdict, aside
