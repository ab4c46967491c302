"""What a section of the report is made of: tables, charts, confusion matrices, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from markupsafe import Markup

from fra.report import charts
from fra.report.artifacts import TaskResult

T = TypeVar("T")


SERIES = [f"var(--series-{number})" for number in range(5)]
"""Colours of models and of curves, defined by the style sheet for light and dark."""


TABLE_ROWS = 24
"""Rows of the table beside a curve."""


@dataclass(frozen=True)
class Table:
    """A table: columns, rows of text, and what it shows."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A chart, what it says in a sentence (for those who do not see it), its numbers, and how to read it."""

    title: str
    svg: Markup
    summary: str
    table: Table
    note: str = ""


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of one model: rows are true classes; each cell is (text, share of its row).

    `label` is the manifest's label that the classes are values of, where it can be told.
    """

    label: str | None

    caption: str
    classes: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]


@dataclass(frozen=True)
class Missing:
    """Why a part of the page is not there."""

    reason: str


def attempt(make: Callable[[], T]) -> T | Missing:
    """What `make` returns, or why its artifacts do not allow it."""
    try:
        return make()
    except (ValueError, RuntimeError, KeyError, FileNotFoundError) as error:
        return Missing(str(error.args[0]))


def per_task(task: TaskResult | None, make: Callable[[TaskResult], T]) -> T | Missing:
    """What `make` returns for a task's artifacts, or why there is nothing."""
    return Missing("This task was not run.") if task is None else attempt(lambda: make(task))


def curve(
    title: str,
    frame: pd.DataFrame,
    x: str,
    x_title: str,
    y: Mapping[str, str],
    y_title: str,
    y_format: str,
    *,
    x_format: str = ",.0f",
    note: str = "",
    from_zero: bool = True,
    diagonal: bool = False,
    log_x: bool = False,
) -> Chart:
    """A chart of curves, with a summary and a table made from the same numbers."""
    svg = charts.curves(
        frame,
        x=x,
        y=y,
        colours=SERIES,
        x_title=x_title,
        y_title=y_title,
        x_format=x_format,
        y_format=y_format,
        from_zero=from_zero,
        diagonal=diagonal,
        log_x=log_x,
    )
    places = np.unique(np.linspace(0, len(frame) - 1, TABLE_ROWS).round().astype(int))
    rows = [
        [format(row[x], x_format), *("" if pd.isna(row[c]) else format(row[c], y_format) for c in y)]
        for _, row in frame.iloc[places].iterrows()
    ]
    courses = [
        f"{name} goes from {format(known.iloc[0], y_format)} to {format(known.iloc[-1], y_format)}"
        for column, name in y.items()
        if len(known := frame[column].dropna())
    ]
    ends = f"{x_title} {format(frame[x].iloc[0], x_format)} to {format(frame[x].iloc[-1], x_format)}"
    summary = f"{title}, {ends}: {'; '.join(courses)}."
    return Chart(title, svg, summary, Table(title, [x_title, *y.values()], rows), note)
