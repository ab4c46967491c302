"""Data Docs: the rules and their outcome, as self-contained HTML pages.

`index.html` is ours: result, sample and distributions, broken rules with contact sheets, all rules, files. The other
pages are Great Expectations' own, one per table, without their scripts and remote styles. Equal data give equal bytes:
no page contains a time or a path of the machine.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fra.files import write_text
from fra.validation.config import ValidateConfig
from fra.validation.face_stats import FaceFinder
from fra.validation.page import sheet
from fra.validation.page.charts import charts
from fra.validation.results import Explainer, RuleResult
from fra.validation.rules.rule import ACTIONS, TABLES, Rule, Table
from fra.validation.verdict import ValidationResult, exclusions

SITE = "data_docs"
LISTED = 200
TEMPLATES = Path(__file__).parent / "templates"
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Example:
    """One row that breaks a rule: its name and the reason; for an image its thumbnail, and the image it resembles.

    Thumbnails are data URIs, None for images that cannot be decoded.
    """

    source: str
    reason: str
    thumbnail: str | None = None
    other_thumbnail: str | None = None
    other_source: str | None = None


@dataclass(frozen=True)
class RuleView:
    """One rule as the page shows it: its outcome and CSS class, how many rows break it, the first of them."""

    rule: Rule
    outcome: str
    style: str
    count: int
    examples: list[Example]
    anchor: str


def anchor(name: str) -> str:
    """Returns a rule's name as an HTML anchor."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def outcome(result: RuleResult) -> str:
    """Returns the outcome of a rule: "holds", "fails" or "not evaluated"."""
    if not result.evaluated:
        return "not evaluated"
    return "holds" if result.success else "fails"


def rule_view(result: RuleResult, explainer: Explainer, images: dict[int, str]) -> RuleView:
    """Returns one rule with examples of the rows that break it; `images` maps rows to thumbnails."""
    rule, examples = result.rule, []
    for row in sheet.spread(result.rows).tolist():
        source, reason = explainer.source(rule, row), value_of(rule, row, explainer)
        if rule.table != "images":
            examples.append(Example(source, reason))
        elif (other := explainer.other(rule, row)) is None:
            examples.append(Example(source, reason, images.get(row)))
        else:
            name = explainer.source(rule, other)
            examples.append(Example(source, reason, images.get(row), images.get(other), name))
    text = outcome(result)
    style = f"fails-{rule.severity}" if text == "fails" else text.replace(" ", "-")
    return RuleView(rule, text, style, len(result.rows), examples, anchor(rule.name))


def value_of(rule: Rule, row: int, explainer: Explainer) -> str:
    """Returns the value by which a row breaks a rule, with its name; an error alone."""
    detail = explainer.detail(rule, row)
    if explainer.other(rule, row) is not None:  # its image is shown with its name
        return ""
    if not detail or rule.reported_column in ("error", "no_face"):
        return detail
    return f"{rule.reported_column.replace('_', ' ')}: {detail}"


def write(
    site: Path,
    result: ValidationResult,
    results: Sequence[RuleResult],
    explainer: Explainer,
    quarantined: pd.DataFrame,
    shards: Path,
    config: ValidateConfig,
    finder: FaceFinder | None = None,
    photographs: Path | None = None,
) -> None:
    """Writes the pages into the folder `site`, replacing the present ones.

    Args:
        site: The folder `data_docs`.
        result: The validation result.
        results: The result of each rule.
        explainer: The explanations of broken rules.
        quarantined: The quarantined rows.
        shards: The folder of the shards, to read thumbnails from.
        config: The limits that the charts show.
        finder: Finds the faces whose boxes are drawn; None for no boxes.
        photographs: The folder of the photographs that faces were cropped from; None for a set of whole images.
    """
    table = explainer.frames["images"]
    shown = sheet.rows_shown(results, explainer, on_faces=False)
    plain = sheet.thumbnails(table, shown, shards) | sheet.photographs(table, shown, photographs)
    sample = sheet.sample(table).tolist()
    on_faces = sheet.rows_shown(results, explainer, on_faces=True)
    boxed = sheet.thumbnails(table, {*sample, *on_faces}, shards, finder)
    views = [rule_view(one, explainer, boxed if sheet.is_on_faces(one.rule) else plain) for one in results]
    pages = {name: page for name in TABLES if (page := great_expectations_page(name, results)) is not None}
    page = ENVIRONMENT.get_template("docs.html").render(
        result=result,
        exclusions=exclusions(vars(result)),
        views=views,
        sample=[Example(str(table["source"].iat[row]), "", boxed[row]) for row in sample if row in boxed],
        boxes=finder is not None,
        charts=charts(table, config),
        broken=[view for severity in ACTIONS for view in views if view.style == f"fails-{severity}"],
        tables={
            name: title for name, title in TABLES.items() if any(view.rule.table == name for view in views)
        },
        actions=ACTIONS,
        pages=pages,
        quarantined=quarantined.head(LISTED),
        more=max(0, len(quarantined) - LISTED),
        style=(TEMPLATES / "docs.css").read_text(encoding="utf-8"),
    )
    shutil.rmtree(site, ignore_errors=True)
    write_text(page, site / "index.html")
    for name, content in pages.items():
        write_text(content, site / f"{name}.html")


def great_expectations_page(name: Table, results: Sequence[RuleResult]) -> str | None:
    """Returns Great Expectations' own page of one table; None where no rule of the table was evaluated."""
    outcomes = [result.outcome for result in results if result.rule.table == name and result.evaluated]
    if not outcomes:
        return None
    for outcome in outcomes:  # up to a million row numbers
        for key in ("unexpected_index_list", "partial_unexpected_index_list", "unexpected_list"):
            outcome.result.pop(key, None)
        outcome.expectation_config.id = None
    good = sum(bool(outcome.success) for outcome in outcomes)
    suite_result = ExpectationSuiteValidationResult(
        success=good == len(outcomes),
        results=outcomes,
        suite_name=TABLES[name],
        statistics={
            "evaluated_expectations": len(outcomes),
            "successful_expectations": good,
            "unsuccessful_expectations": len(outcomes) - good,
            "success_percent": 100 * good / len(outcomes),
        },
        meta={
            "great_expectations_version": "",
            "batch_kwargs": {},
            "run_id": {"run_name": "validation", "run_time": None},
        },
    )
    return offline(page_view().render(ValidationResultsPageRenderer().render(suite_result)))


@cache
def page_view() -> Any:
    """Returns Great Expectations' view of a page, which compiles its templates once."""
    return DefaultJinjaPageView()


PAIRED = re.compile(r"<script\b[^>]*>.*?</script>|<svg\b[^>]*>.*?</svg>", re.IGNORECASE | re.DOTALL)
SINGLE = re.compile(r"<(?:link|img|base|iframe)\b[^>]*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
REMOTE = re.compile(r"@import[^;]*;|url\(\s*[\"']?(?:https?:)?//[^)]*\)", re.IGNORECASE)
RANDOM = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


def offline(page: str) -> str:
    """Returns a page of Great Expectations that loads nothing and has the same bytes each time.

    Scripts, images and remote styles are removed, our style is inserted, random identifiers are numbered.
    """
    page = REMOTE.sub("", SINGLE.sub("", PAIRED.sub("", page)))
    names: dict[str, str] = {}
    page = RANDOM.sub(lambda found: names.setdefault(found[0], f"id{len(names)}"), page)
    style = (TEMPLATES / "docs.css").read_text(encoding="utf-8")
    back = '<p><a href="index.html">All Data Docs</a></p>'
    page = page.replace("</head>", f"<style>{style}</style></head>", 1)
    return re.sub(r"(<body\b[^>]*>)", lambda found: found[1] + back, page, count=1)
