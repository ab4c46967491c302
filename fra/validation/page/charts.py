"""Distributions of a data set as small charts: inline SVG without scripts, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray

from fra.validation.config import ValidateConfig

WIDTH, HEIGHT, BOTTOM = 280, 110, 20
"""Size of a chart in SVG units, and the height of the labels below its axis."""
BINS = 24
"""Bins of a histogram, about."""
TAIL = 0.002
"""Share of the values at each end that the first and the last bin hold in addition."""
CLASSES = 40
"""Classes of a label that are shown, at most."""
LEAST_BINS = 6
"""Bins of a histogram, at least, so that a single value is no broad bar."""
Limits = tuple[float | None, float | None]


@dataclass(frozen=True)
class Chart:
    """A chart with what it shows in words, and its numbers: a name and a count per bar."""

    title: str
    svg: Markup
    summary: str
    bars: list[tuple[str, int]]


def charts(images: pd.DataFrame, config: ValidateConfig) -> list[Chart]:
    """Returns the charts of a data set; photographs without a face to crop are no images of it.

    Args:
        images: The table `images` of `fra.validation.tables`.
        config: The limits, which are drawn as dashed lines.
    """
    images = images[images["no_face"].isna()]
    shown = images[images["readable"] == 1]
    (dark, bright), (blurred, noise) = config.brightness, config.sharpness
    found: list[tuple[str, pd.Series, Limits]] = [
        ("Brightness (mean grey value)", shown["brightness"], (dark, bright)),
        ("Contrast (standard deviation of grey values)", shown["contrast"], (config.min_contrast, None)),
        ("Sharpness", shown["sharpness"], (blurred, noise)),
        ("Shortest side in pixels", shown["shortest_side"], (config.min_side, None)),
        ("Score of the face", shown["face_score"], (config.min_face_score, None)),
        ("Size of the face (share of the image's side)", shown["face_share"], (config.min_face_share, None)),
        ("Distance of the face from the centre", shown["face_offset"], (None, config.max_face_offset)),
        (
            "Yaw in degrees (estimated from the nose; upright faces)",
            shown["face_yaw"].where(shown["face_roll"] == 0),
            (None, None),
        ),
    ]
    for name in images.columns:
        if name.startswith(("measure.", "photo.", "face.")):
            found.append((name, shown[name], (None, None)))
    made = [histogram(title, values, limits) for title, values, limits in found]
    people = images.loc[images["person"].notna(), "person"].value_counts()
    made.append(histogram("Images per person", people, (None, None)))
    return [chart for chart in made if chart is not None] + list(counts(images))


def counts(images: pd.DataFrame) -> Iterator[Chart]:
    """Yields bar charts: images by split, faces in an image, and the frequencies of each label."""
    yield bars("Images by split", images["split"].value_counts(sort=False))
    if images["faces"].notna().any():
        faces = (
            images["faces"]
            .dropna()
            .clip(upper=3)
            .astype(int)
            .map({0: "none", 1: "1", 2: "2", 3: "3 or more"})
        )
        yield bars("Faces in an image", faces.value_counts(sort=False))
    for name in images.columns:
        if name.startswith("label.") and images[name].notna().any():
            values = images[name].dropna().astype(int).value_counts().sort_index()
            yield bars(f"Label {name.removeprefix('label.')}", values)


def histogram(title: str, values: pd.Series, limits: Limits) -> Chart | None:
    """Returns a histogram with bins of a round width; None without values.

    Args:
        title: Title of the chart.
        values: The values; missing ones are left out.
        limits: The lowest and highest value that a rule accepts, drawn where the chart shows them.
    """
    known = values.dropna().to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    edges = bin_edges(known)
    if np.all(known == np.round(known)) and edges[1] - edges[0] == 1:
        edges = edges - 0.5  # one bin per whole number, in its middle
    count_B = np.histogram(known.clip(edges[0], edges[-1]), edges)[0]
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    summary = f"{len(known):,} values: median {short(middle)}, nine of ten from {short(low)} to {short(high)}"
    outside = [("below", known < limits[0])] if limits[0] is not None else []
    outside += [("above", known > limits[1])] if limits[1] is not None else []
    for (word, beyond), limit in zip(outside, [limit for limit in limits if limit is not None], strict=True):
        summary += f"; {int(beyond.sum()):,} {word} the limit {short(limit)}"
    named = [
        (span_name(start, end), int(count))
        for start, end, count in zip(edges[:-1], edges[1:], count_B, strict=True)
    ]
    return Chart(title, histogram_svg(title, summary, edges, count_B, limits), summary, named)


def bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the edges of about `BINS` bins, at multiples of 1, 2 or 5 times a power of ten."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    whole = bool(np.all(values == np.round(values)))
    step = nice(max(high - low, 1e-9) / BINS)
    if whole:
        step = max(1.0, step)
    elif high - low < 1e-9:
        step = nice(max(abs(high), 1.0) / BINS)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    more = max(0, LEAST_BINS - (last - first))
    first, last = first - more // 2, last + more - more // 2
    edges: NDArray[np.float64] = np.round(np.arange(first, last + 1) * step, 9)
    return edges


def nice(step: float) -> float:
    """Returns the next of 1, 2 and 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9)))


def span_name(start: float, end: float) -> str:
    """Returns the name of a bin; of one around a whole number, that number."""
    whole = end - start == 1 and start % 1 == 0.5
    return short(start + 0.5) if whole else f"{short(start)} to {short(end)}"


def short(value: float) -> str:
    """Returns a number in a few characters."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded.is_integer() else f"{rounded:g}"


def histogram_svg(
    title: str, summary: str, edges: NDArray[np.float64], count_B: NDArray[np.int64], limits: Limits
) -> Markup:
    """Returns the drawing of a histogram."""
    base, span = HEIGHT - BOTTOM, float(edges[-1] - edges[0])
    most = max(int(count_B.max()), 1)

    def x(value: float) -> float:
        return round((value - float(edges[0])) / span * WIDTH, 1)

    parts = []
    for start, end, count in zip(edges[:-1], edges[1:], count_B.tolist(), strict=True):
        height = round(count / most * (base - 14), 1) if count else 0
        parts.append(
            f'<rect class="bar" x="{x(start) + 0.5:g}" y="{base - height:g}" '
            f'width="{max(x(end) - x(start) - 1, 0.5):.1f}" height="{height:g}">'
            f"<title>{span_name(start, end)}: {count:,}</title></rect>"
        )
    parts.append(f'<path class="axis" d="M0 {base}H{WIDTH}"/>')
    step = max(nice(span / 4), 1.0 if edges[0] % 1 == 0.5 else 0.0)
    for place in range(math.ceil(edges[0] / step - 1e-9), math.floor(edges[-1] / step + 1e-9) + 1):
        at, anchor = x(place * step), "middle"
        anchor = "start" if at < 12 else "end" if at > WIDTH - 12 else anchor
        parts.append(f'<text x="{at:g}" y="{HEIGHT - 5}" text-anchor="{anchor}">{short(place * step)}</text>')
    parts.append(f'<text x="0" y="9">most: {most:,}</text>')
    for limit in limits:
        if limit is not None and edges[0] <= limit <= edges[-1]:
            parts.append(f'<path class="limit" d="M{x(limit):g} 12V{base}"/>')
    return drawing(f"{title}. {summary}", HEIGHT, parts)


def bars(title: str, values: pd.Series) -> Chart:
    """Returns a chart with one horizontal bar per value of a series of counts, the first `CLASSES` of them."""
    named = [(str(name), int(count)) for name, count in values.head(CLASSES).items()]
    total, most = max(int(values.sum()), 1), max([count for _, count in named], default=1)
    parts = []
    for row, (name, count) in enumerate(named):
        y, width = 18 * row, round(count / most * 130, 1)
        parts.append(f'<text x="0" y="{y + 13}">{escape(name[:14])}</text>')
        parts.append(f'<rect class="bar" x="80" y="{y + 3}" width="{max(width, 0.5):g}" height="12"/>')
        parts.append(f'<text x="{84 + width:g}" y="{y + 13}">{count:,} ({count / total:.0%})</text>')
    more = f", the first {CLASSES} of {len(values):,}" if len(values) > CLASSES else ""
    summary = f"{total:,} images{more}"
    return Chart(title, drawing(f"{title}. {summary}", 18 * max(len(named), 1), parts), summary, named)


def drawing(label: str, height: int, parts: Sequence[str]) -> Markup:
    """Returns an SVG element; `label` is its text for those who do not see it."""
    return Markup(  # safe: all text is escaped or numbers
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
