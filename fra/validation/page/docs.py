"""Data Docs: the specification and what became of it, in pages that need nothing but a browser.

`index.html` is ours: verdict, what failed with thumbnails, every rule, what was set aside, the files that were judged.
Beside it are Great Expectations' own pages of each table, their scripts and remote styles taken out. The same data give
the same bytes: no page tells when or where it was made.
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
from fra.validation.results import Found, Words
from fra.validation.rules.rule import TABLES, THEN, Rule, Table
from fra.validation.verdict import Verdict

SITE = "data_docs"
EXAMPLES = 8
LISTED = 200
THUMB = 96
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Example:
    """One row that breaks a rule: what it is called, what is wrong, its picture and the one it is like (data URIs)."""

    source: str
    reason: str
    picture: str | None = None
    other: str | None = None
    other_source: str | None = None


@dataclass(frozen=True)
class Line:
    """One rule on the page."""

    rule: Rule
    state: str
    count: int
    examples: list[Example]
    anchor: str


def anchor(name: str) -> str:
    """A rule's name as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def thumbnail(image: NDArray[np.uint8]) -> str:
    """An image as a small JPEG in a data URI; its aspect is kept."""
    height, width = image.shape[:2]
    scale = THUMB / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    _, content = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def thumbnails(images: pd.DataFrame, rows: set[int], shards: Path) -> dict[int, str]:
    """Thumbnails of some rows, of those that can be decoded from their shards."""
    found: dict[int, str] = {}
    chosen = images.loc[sorted(rows), ["key", "shard"]].dropna()
    for shard, wanted in chosen.groupby("shard", sort=True):
        row_of = dict(zip(wanted["key"], wanted.index.tolist(), strict=True))
        try:
            for key, content in members(shards / str(shard), set(row_of)):
                found[row_of[key]] = thumbnail(decode(content))
        except (OSError, EOFError, tarfile.TarError, ImageError):
            continue
    return found


def pictures_of(findings: Sequence[Found], words: Words, shards: Path) -> dict[int, str]:
    """Thumbnails of the images that the page shows: the first that break each rule, and those they are like."""
    rows: set[int] = set()
    for found in findings:
        if found.rule.table == "images":
            for row in found.rows[:EXAMPLES].tolist():
                other = words.other(found.rule, row)
                rows |= {row} if other is None else {row, other}
    return thumbnails(words.frames["images"], rows, shards)


def state(found: Found) -> str:
    """What became of a rule, in a word."""
    if not found.judged:
        return "not judged"
    return "holds" if found.success else THEN[found.rule.severity]


def line(found: Found, words: Words, pictures: dict[int, str]) -> Line:
    """One rule with its examples."""
    examples = []
    for row, (source, reason) in zip(found.rows.tolist(), words.examples(found, EXAMPLES), strict=False):
        if found.rule.table != "images":
            examples.append(Example(source, reason))
        elif (other := words.other(found.rule, row)) is None:
            examples.append(Example(source, reason, pictures.get(row)))
        else:
            name = words.source(found.rule, other)
            examples.append(Example(source, reason, pictures.get(row), pictures.get(other), name))
    return Line(found.rule, state(found), len(found.rows), examples, anchor(found.rule.name))


def write(
    site: Path, verdict: Verdict, findings: Sequence[Found], words: Words, aside: pd.DataFrame, shards: Path
) -> None:
    """Writes the pages into the folder `site`, instead of those that are there."""
    pictures = pictures_of(findings, words, shards)
    lines = [line(found, words, pictures) for found in findings]
    pages = {name: page for name in TABLES if (page := great_expectations_page(name, findings)) is not None}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("docs.html").render(
        verdict=verdict,
        lines=lines,
        broken=[line for then in THEN.values() for line in lines if line.state == then],
        tables={
            name: title for name, title in TABLES.items() if any(line.rule.table == name for line in lines)
        },
        then=THEN,
        pages=pages,
        aside=aside.head(LISTED),
        left=max(0, len(aside) - LISTED),
        style=(TEMPLATES / "docs.css").read_text(encoding="utf-8"),
    )
    shutil.rmtree(site, ignore_errors=True)
    write_text(page, site / "index.html")
    for name, content in pages.items():
        write_text(content, site / f"{name}.html")


def great_expectations_page(name: Table, findings: Sequence[Found]) -> str | None:
    """Great Expectations' own page of the results on one table; None where nothing was judged."""
    outcomes = [found.result for found in findings if found.rule.table == name and found.judged]
    if not outcomes:
        return None
    for outcome in outcomes:  # a million row numbers are no reading
        for key in ("unexpected_index_list", "partial_unexpected_index_list", "unexpected_list"):
            outcome.result.pop(key, None)
        outcome.expectation_config.id = None
    good = sum(bool(outcome.success) for outcome in outcomes)
    result = ExpectationSuiteValidationResult(
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
            "run_id": {"run_name": "gate", "run_time": None},
        },
    )
    page: Any = DefaultJinjaPageView()
    return offline(page.render(ValidationResultsPageRenderer().render(result)))


PAIRED = re.compile(r"<script\b[^>]*>.*?</script>|<svg\b[^>]*>.*?</svg>", re.IGNORECASE | re.DOTALL)
SINGLE = re.compile(r"<(?:link|img|base|iframe)\b[^>]*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
REMOTE = re.compile(r"@import[^;]*;|url\(\s*[\"']?(?:https?:)?//[^)]*\)", re.IGNORECASE)
RANDOM = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


def offline(page: str) -> str:
    """A page of Great Expectations that loads nothing and has the same bytes each time.

    Scripts, pictures and styles from elsewhere are taken out, our style is put in, random names are numbered.
    """
    page = REMOTE.sub("", SINGLE.sub("", PAIRED.sub("", page)))
    names: dict[str, str] = {}
    page = RANDOM.sub(lambda found: names.setdefault(found[0], f"id{len(names)}"), page)
    style = (TEMPLATES / "docs.css").read_text(encoding="utf-8")
    back = '<p><a href="index.html">All Data Docs</a></p>'
    page = page.replace("</head>", f"<style>{style}</style></head>", 1)
    return re.sub(r"(<body\b[^>]*>)", lambda found: found[1] + back, page, count=1)
