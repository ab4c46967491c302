"""Data Docs: the rules and their outcome, as self-contained HTML pages.

`index.html` is ours: result, broken rules with thumbnails, all rules, quarantined images, validated files. The other
pages are Great Expectations' own, one per table, without their scripts and remote styles. Equal data give equal bytes:
no page contains a time or a path of the machine.
"""

from __future__ import annotations

import base64
import re
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from fra.data.images import ImageError, decode, members
from fra.files import write_text
from fra.validation.results import Explainer, RuleResult
from fra.validation.rules.rule import ACTIONS, TABLES, Rule, Table
from fra.validation.verdict import ValidationResult, exclusions

SITE = "data_docs"
EXAMPLES = 8
LISTED = 200
THUMB = 96
TEMPLATES = Path(__file__).parent / "templates"


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


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Returns an image (H, W, 3) as a small JPEG of the same aspect ratio, in a data URI."""
    height, width = image.shape[:2]
    scale = THUMB / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    _, content = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def thumbnails(images: pd.DataFrame, rows: set[int], shards: Path) -> dict[int, str]:
    """Returns thumbnails of the given rows, without those whose image cannot be decoded from its shard."""
    found: dict[int, str] = {}
    selected = images.loc[sorted(rows), ["key", "shard"]].dropna()
    for shard, wanted in selected.groupby("shard", sort=True):
        row_of = dict(zip(wanted["key"], wanted.index.tolist(), strict=True))
        try:
            for key, content in members(shards / str(shard), set(row_of)):
                found[row_of[key]] = thumbnail(decode(content))
        except (OSError, EOFError, tarfile.TarError, ImageError):
            continue
    return found


def thumbnails_of(results: Sequence[RuleResult], explainer: Explainer, shards: Path) -> dict[int, str]:
    """Returns thumbnails of the first images that break each rule, and of the images they resemble."""
    rows: set[int] = set()
    for result in results:
        if result.rule.table == "images":
            for row in result.rows[:EXAMPLES].tolist():
                other = explainer.other(result.rule, row)
                rows |= {row} if other is None else {row, other}
    return thumbnails(explainer.frames["images"], rows, shards)


def outcome(result: RuleResult) -> str:
    """Returns the outcome of a rule: "holds", "fails" or "not evaluated"."""
    if not result.evaluated:
        return "not evaluated"
    return "holds" if result.success else "fails"


def rule_view(result: RuleResult, explainer: Explainer, images: dict[int, str]) -> RuleView:
    """Returns one rule with its examples; `images` maps rows to thumbnails."""
    rule, examples = result.rule, []
    for row, (source, reason) in zip(
        result.rows.tolist(), explainer.examples(result, EXAMPLES), strict=False
    ):
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


def write(
    site: Path,
    result: ValidationResult,
    results: Sequence[RuleResult],
    explainer: Explainer,
    quarantined: pd.DataFrame,
    shards: Path,
) -> None:
    """Writes the pages into the folder `site`, replacing the present ones.

    Args:
        site: The folder `data_docs`.
        result: The validation result.
        results: The result of each rule.
        explainer: The explanations of broken rules.
        quarantined: The quarantined rows.
        shards: The folder of the shards, to read thumbnails from.
    """
    images = thumbnails_of(results, explainer, shards)
    views = [rule_view(one, explainer, images) for one in results]
    pages = {name: page for name in TABLES if (page := great_expectations_page(name, results)) is not None}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("docs.html").render(
        result=result,
        exclusions=exclusions(vars(result)),
        views=views,
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
    page: Any = DefaultJinjaPageView()
    return offline(page.render(ValidationResultsPageRenderer().render(suite_result)))


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
