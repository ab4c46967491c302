"""Charts as inline SVG, rendered by Vega-Lite and coloured by CSS variables of the page.

Each chart contains invisible marks; the ``aria-label`` of a mark has the values at its position, one for each series.
The page's script shows the label of the mark next to the pointer, or of the one that the arrow keys select. A chart is
complete without the script. Text is laid out in Liberation Sans, which is part of the renderer, so the same data give
the same bytes on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from markupsafe import Markup

WIDTH, HEIGHT = 300, 180
"""Plot area in SVG units, close to the width of a phone, so that text is not scaled down there."""

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
VALUES_SEPARATOR = "; "
ROOT_TAG = re.compile(r"<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>")


def curves(
    frame: pd.DataFrame,
    *,
    x: str,
    y: Mapping[str, str],
    colours: list[str],
    x_title: str,
    y_title: str,
    x_format: str = ",.0f",
    y_format: str = ".3g",
    from_zero: bool = True,
    diagonal: bool = False,
    log_x: bool = False,
) -> Markup:
    """Draw a line chart: one line for each entry of `y` over the column `x`.

    Args:
        frame: A row for each position on the x axis; missing values leave gaps.
        x: Column of the x axis.
        y: Name in the legend, by column.
        colours: CSS colours of the lines.
        x_title: Title of the x axis.
        y_title: Title of the y axis; may be empty.
        x_format: Format of x values in the readings.
        y_format: Format of y values in the readings.
        from_zero: Whether the y axis starts at 0.
        diagonal: Whether to draw the line from (0, 0) to (1, 1), which is chance level in a ROC.
        log_x: Whether the x axis is logarithmic, with a tick at each position.
    """
    names = list(y.values())
    long = frame.melt(id_vars=x, value_vars=list(y), var_name="column", value_name="value")
    long["series"] = long["column"].map(dict(y))
    ticks = {"values": sorted(frame[x]), "format": "~g"} if log_x else {"tickCount": 6}
    x_axis = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(type="log" if log_x else "linear", nice=False),
        axis=alt.Axis.from_dict({"grid": False, **ticks}),
    )
    y_axis = alt.Y(
        "value:Q", title=y_title or None, scale=alt.Scale(zero=from_zero), axis=alt.Axis(tickCount=5)
    )

    lines = (
        alt.Chart(long.rename(columns={x: "x"}))
        .mark_line(strokeWidth=2, strokeJoin="round", aria=False)
        .encode(x=x_axis, y=y_axis, color=_series_colour(names, colours), strokeDash=_series_dash(names))
    )
    reading = pd.DataFrame({"x": frame[x], "values": _readings(frame, x, y, x_title, x_format, y_format)})
    positions = (
        alt.Chart(reading)
        .mark_rule(stroke=MUTED, opacity=0, strokeWidth=1)
        .encode(x="x:Q", description="values:N")
    )
    layers = [lines, positions]
    if diagonal:
        chance = pd.DataFrame({"x": [0.0, 1.0], "value": [0.0, 1.0]})
        layers.insert(
            0,
            alt.Chart(chance)
            .mark_line(stroke=MUTED, strokeDash=[2, 3], strokeWidth=1, aria=False)
            .encode(x="x:Q", y="value:Q"),
        )
    return _svg(alt.layer(*layers).properties(width=WIDTH, height=HEIGHT))


def intervals(
    frame: pd.DataFrame,
    *,
    colours: list[str],
    x_title: str,
    x_format: str = ".3f",
    row_height: int = 34,
    line_at: float | None = None,
) -> Markup:
    """Draw means with their 95 % intervals, one line of the chart for each row and series.

    Args:
        frame: Columns row, series, mean, low, high; rows and series keep their order of first appearance.
        colours: CSS colours of the series.
        x_title: Title of the x axis.
        x_format: Format of values in the readings.
        row_height: Height of a row in SVG units.
        line_at: Value at which a vertical line is drawn, such as 0 for no difference.
    """
    rows, names = list(dict.fromkeys(frame["row"])), list(dict.fromkeys(frame["series"]))
    written = {name: [format(value, x_format) for value in frame[name]] for name in ("mean", "low", "high")}
    readings = [
        VALUES_SEPARATOR.join([row, f"{series}: {mean}", f"95 % interval: {low} to {high}"])
        for row, series, mean, low, high in zip(frame["row"], frame["series"], *written.values(), strict=True)
    ]
    data = frame.assign(values=readings)
    base = alt.Chart(data).encode(
        y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(grid=True, labelLimit=220)),
        yOffset=alt.YOffset("series:N", sort=names),
    )
    x_scale = alt.Scale(zero=False, padding=12)
    bars = base.mark_rule(strokeWidth=2, aria=False).encode(
        x=alt.X("low:Q", title=x_title, scale=x_scale, axis=alt.Axis(tickCount=5, grid=False)),
        x2="high:Q",
        color=_series_colour(names, colours),
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="mean:Q",
        color=_series_colour(names, colours),
        shape=alt.Shape("series:N", sort=names, legend=None),
        description="values:N",
    )
    layers = [bars, dots]
    if line_at is not None:
        line = alt.Chart(pd.DataFrame({"x": [line_at]})).mark_rule(color=MUTED, strokeDash=[4, 3], aria=False)
        layers.insert(0, line.encode(x="x:Q"))
    return _svg(alt.layer(*layers).properties(width=WIDTH - 70, height=row_height * len(rows)))


def binned(frame: pd.DataFrame, x: str, bins: int = 120) -> pd.DataFrame:
    """Average consecutive rows of `frame` into at most `bins` rows, to keep charts of long runs small.

    The last bin may have fewer rows. The column `x` has the last value of each bin.
    """
    size = -(-len(frame) // bins) if len(frame) else 1
    groups = frame.reset_index(drop=True).groupby(lambda row: row // size)
    return groups.mean().assign(**{x: groups[x].last()})


def _series_colour(names: list[str], colours: list[str]) -> alt.Color:
    scale = alt.Scale(domain=names, range=colours[: len(names)])
    return alt.Color("series:N", sort=names, scale=scale, legend=_legend(names))


def _series_dash(names: list[str]) -> alt.StrokeDash:
    dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4]]
    scale = alt.Scale(domain=names, range=[dashes[i % len(dashes)] for i in range(len(names))])
    return alt.StrokeDash("series:N", sort=names, scale=scale, legend=_legend(names))


def _legend(names: list[str]) -> alt.Legend | None:
    """Return a legend above the plot, with as many columns as fit; None for a single series."""
    if len(names) == 1:
        return None
    columns = max(1, WIDTH // (40 + 7 * max(map(len, names))))
    return alt.Legend(
        orient="top", title=None, symbolType="stroke", symbolStrokeWidth=3, columns=columns, columnPadding=16
    )


def _readings(
    frame: pd.DataFrame, x: str, y: Mapping[str, str], x_title: str, x_format: str, y_format: str
) -> list[str]:
    """Return the values at each position of the x axis as text."""
    return [
        VALUES_SEPARATOR.join(
            [f"{x_title} {format(row[x], x_format)}"]
            + [
                f"{name}: {format(row[column], y_format)}"
                for column, name in y.items()
                if pd.notna(row[column])
            ]
        )
        for _, row in frame.iterrows()
    ]


def _svg(chart: alt.LayerChart | alt.FacetChart) -> Markup:
    """Render a chart to SVG that scales with its container and uses the colours of the page."""
    spec: dict[str, Any] = (
        chart.configure(font="Liberation Sans", background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED,
            titleColor=MUTED,
            titleFontWeight="normal",
            titleFontSize=12,
            labelFontSize=12,
            gridColor=GRID,
            domainColor=GRID,
            tickColor=GRID,
            aria=False,
        )
        .configure_legend(labelColor=INK, labelFontSize=12, symbolSize=160, labelLimit=220, aria=False)
        .to_dict()
    )
    svg = vl_convert.vegalite_to_svg(spec)
    svg = ROOT_TAG.sub(r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg, count=1)
    return Markup(svg)  # safe: the renderer escapes all text
