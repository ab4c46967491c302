"""Elements of the report's sections: tables, charts, confusion matrices, and reasons for missing parts."""

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
"""CSS colours of models and curves; the style sheet defines them for the light and the dark scheme."""

TABLE_ROWS = 24
"""Maximum number of rows of the table below a curve."""


@dataclass(frozen=True)
class Table:
    """A table: its caption, the column titles, and rows of text."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A chart, its summary in a sentence (for screen readers), a table of its values, and a note for the reader."""

    title: str
    svg: Markup
    summary: str
    table: Table
    note: str = ""


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix of one model: rows are true classes; each cell is (text, share of its row).

    `label` is the manifest's label whose values are the classes, or None if it is ambiguous.
    """

    label: str | None
    caption: str
    classes: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]


@dataclass(frozen=True)
class Missing:
    """Reason why a part of the page is missing."""

    reason: str


def attempt(make: Callable[[], T]) -> T | Missing:
    """Return the result of `make`, or a `Missing` with the message of the error that it raised."""
    try:
        return make()
    except (ValueError, RuntimeError, KeyError, FileNotFoundError) as error:
        # the text of a KeyError is its message in quotes
        return Missing(str(error.args[0]) if isinstance(error, KeyError) else str(error))


def per_task(task: TaskResult | None, make: Callable[[TaskResult], T]) -> T | Missing:
    """Return the result of `make` for a task, or a `Missing` if the task was not run or `make` failed."""
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
    """Draw a line chart, with a summary and a table of the same values.

    `x`, `y` and all options are those of `fra.report.charts.curves`; `note` is a sentence below the title.
    """
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
    positions = np.unique(np.linspace(0, len(frame) - 1, TABLE_ROWS).round().astype(int))
    rows = [
        [format(row[x], x_format), *("" if pd.isna(row[c]) else format(row[c], y_format) for c in y)]
        for _, row in frame.iloc[positions].iterrows()
    ]
    changes = [
        f"{name} goes from {format(known.iloc[0], y_format)} to {format(known.iloc[-1], y_format)}"
        for column, name in y.items()
        if len(known := frame[column].dropna())
    ]
    ends = f"{x_title} {format(frame[x].iloc[0], x_format)} to {format(frame[x].iloc[-1], x_format)}"
    summary = f"{title}, {ends}: {'; '.join(changes)}."
    return Chart(title, svg, summary, Table(title, [x_title, *y.values()], rows), note)
