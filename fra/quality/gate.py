"""Runs the rules with Great Expectations, and writes verdict, quarantine list and Data Docs."""

from __future__ import annotations

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when great_expectations is imported

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.checkpoint import UpdateDataDocsAction

from fra.data.files import atomic, sha256
from fra.quality.expectations import Rule, ValidateConfig, derive, rules
from fra.quality.measure import measure
from fra.quality.verdict import Verdict, write

EXAMPLES = 5
SITE = "data_docs"


@dataclass(frozen=True)
class Finding:
    """What a rule found: the keys of the rows that break it (empty for rules on the whole table)."""

    rule: Rule
    success: bool
    keys: list[str]
    observed: str


def run(table: pd.DataFrame, suite: list[Rule], docs: Path) -> list[Finding]:
    """Judges the table and builds the Data Docs site in `docs`.

    Raises:
        RuntimeError: an expectation could not be evaluated at all (a missing column, say).
    """
    with tempfile.TemporaryDirectory() as folder:
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        context.add_data_docs_site(
            site_name=SITE,
            site_config={
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder},
            },
        )
        batch = (
            context.data_sources.add_pandas("manifest")
            .add_dataframe_asset("images")
            .add_batch_definition_whole_dataframe("all")
        )
        expectations = []
        for rule in suite:
            rule.expectation.meta = {"rule": rule.name, "severity": rule.severity}
            rule.expectation.notes = f"**{rule.name}** ({rule.severity}): fails where {rule.reason}."
            expectations.append(rule.expectation)
        validation = context.validation_definitions.add(
            gx.ValidationDefinition(
                name="manifest",
                data=batch,
                suite=context.suites.add(gx.ExpectationSuite(name="faces", expectations=expectations)),
            )
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name="gate",
                validation_definitions=[validation],
                actions=[UpdateDataDocsAction(name="docs", site_names=[SITE])],
                result_format={
                    "result_format": "COMPLETE",
                    "unexpected_index_column_names": ["key"],
                    "partial_unexpected_count": EXAMPLES,
                    "exclude_unexpected_values": True,
                },
            )
        )
        (result,) = checkpoint.run(batch_parameters={"dataframe": table}).run_results.values()
        by_name = {outcome.expectation_config.meta["rule"]: outcome for outcome in result.results}
        publish(Path(folder), docs)
    return [finding(rule, by_name[rule.name]) for rule in suite]


def finding(rule: Rule, outcome: Any) -> Finding:
    """Great Expectations' result of one rule, in our words."""
    if (outcome.exception_info and outcome.exception_info.get("raised_exception", False) is True) or (
        not outcome.success and not outcome.result
    ):
        raise RuntimeError(f"the rule {rule.name!r} could not be evaluated: {outcome.exception_info}")
    # without values, Great Expectations lists the keys of all unexpected rows in one entry
    entries = [row["key"] for row in outcome.result.get("unexpected_index_list") or []]
    keys = sorted({str(key) for entry in entries for key in (entry if isinstance(entry, list) else [entry])})
    return Finding(rule, bool(outcome.success), keys, str(outcome.result.get("observed_value", "")))


STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
td,th{border:1px solid #8886;padding:.4rem .6rem;text-align:left;vertical-align:top}
img{max-width:2rem}.badge,.text-success{font-weight:600}
.modal,.d-none,.navbar-toggler{display:none}
ul{padding-left:1.2rem}pre{white-space:pre-wrap}
"""
REMOTE = re.compile(
    r"<script\b[^>]*\bsrc=[^>]*>\s*</script>|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>|@import[^;]*//[^;]*;",
    re.IGNORECASE,
)
REMOTE_IMAGE = re.compile(r"<img\b[^>]*\bsrc=[\"'](?:https?:)?//[^>]*>", re.IGNORECASE)


def offline(page: str) -> str:
    """A Data Docs page that needs no network: scripts and styles from elsewhere are taken out, our style put in."""
    page = REMOTE_IMAGE.sub("", REMOTE.sub("", page))
    return page.replace("</head>", f"<style>{STYLE}</style></head>", 1)


def publish(site: Path, docs: Path) -> None:
    """Moves the finished site to `docs`, its pages readable without a network."""
    shutil.rmtree(docs, ignore_errors=True)
    for page in sorted(site.rglob("*")):
        if page.is_file():
            target = docs / page.relative_to(site)
            target.parent.mkdir(parents=True, exist_ok=True)
            if page.suffix == ".html":
                target.write_text(offline(page.read_text(encoding="utf-8")), encoding="utf-8")
            else:
                shutil.copyfile(page, target)


def quarantine(table: pd.DataFrame, findings: list[Finding]) -> pd.DataFrame:
    """The rows to set aside (key, split, index, source, reason), each with every reason that applies."""
    reasons: dict[str, list[str]] = {}
    errors = table.set_index("key")["error"]
    for found in findings:
        if found.rule.severity == "quarantine":
            for key in found.keys:
                reason = str(errors[key]) if found.rule.name == "decodable" else found.rule.reason
                reasons.setdefault(key, []).append(reason)
    aside = table.loc[table["key"].isin(reasons), ["key", "split", "index", "source"]].sort_values("key")
    return aside.assign(reason=["; ".join(reasons[key]) for key in aside["key"]])


def judge(
    dataset: str, manifest: Path, shards: Path, betons: list[Path], out: Path, config: ValidateConfig
) -> tuple[Verdict, pd.DataFrame]:
    """Judges a data set and writes `out/{verdict.json, quarantine.csv, data_docs/}`; returns verdict and list."""
    table = derive(measure(pd.read_parquet(manifest), shards))
    findings = run(table, rules(config, table), out / SITE)
    aside = quarantine(table, findings)
    reasons = [
        f"{found.rule.name}: {found.rule.reason}"
        + (f" ({', '.join(found.keys[:EXAMPLES])})" if found.keys else "")
        for found in findings
        if not found.success and found.rule.severity == "error"
    ]
    if len(aside) > config.max_quarantined * len(table):
        examples = "; ".join(f"{row.source}: {row.reason}" for row in aside.head(EXAMPLES).itertuples())
        reasons.append(
            f"{len(aside)} of {len(table)} images would be set aside, more than validate.max_quarantined "
            f"{config.max_quarantined:.1%} ({examples})"
        )
    names = sorted(str(name) for name in table["shard"].dropna().unique())
    files = [manifest, shards / "index.json", *(shards / name for name in names), *sorted(betons)]
    verdict = Verdict(
        success=not reasons,
        dataset=dataset,
        judged={file.as_posix(): sha256(file) for file in files},
        rows=len(table),
        quarantined=len(aside),
        limit=config.max_quarantined,
        reasons=reasons,
        expectations=[
            {
                "name": found.rule.name,
                "severity": found.rule.severity,
                "reason": found.rule.reason,
                "success": found.success,
                "unexpected_count": len(found.keys),
                "examples": found.keys[:EXAMPLES],
            }
            for found in findings
        ],
    )
    with atomic(out / "quarantine.csv") as partial:
        aside.to_csv(partial, index=False)
    write(verdict, out / "verdict.json")
    return verdict, aside
