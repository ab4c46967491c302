"""A forest plot of the benchmark: the error of one backbone compared with that of another, with both intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from fra.files import read_csv
from fra.ruler.cross import PHOTOGRAPHS
from fra.ruler.results import ERRORS, beyond_chance
from fra.transfer.config import MINUS

KEYS = ["model", "metric", "labels"]
"""The columns that identify a row of the results."""
BOUNDS = ["value", "low", "high", "seed_low", "seed_high"]
TYPES = {"model": "str", "metric": "str", "labels": "int64"} | dict.fromkeys(BOUNDS, "float64")
CONCLUSIONS = {1: "better beyond chance", 0: "within chance", -1: "worse beyond chance"}
"""Words in the legend, by `conclusion` of `beyond_chance`."""
COLOURS = {1: "#0b63b0", 0: "#8a8f98", -1: "#b3261e"}
SHAPES = {1: "diamond", 0: "circle", -1: "square"}


def read(path: Path, where: Sequence[str] = ()) -> pd.DataFrame:
    """Read metrics as `fra.ruler.results.table` returns them.

    Args:
        path: A results.csv of `fra transfer ruler`; further columns are allowed.
        where: Conditions `column=value`; only rows that fulfil all of them are returned.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is no such table, or several rows are left for one model, metric and number of labels.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        table = read_csv(path, TYPES | {"seeds": "int64"}, "str")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; it must be a results.csv of `fra transfer ruler`") from None
    for condition in where:
        name, _, value = condition.partition("=")
        if name not in table or value not in set(table[name].astype(str)):
            columns = ", ".join(map(str, table))
            raise ValueError(f"{path}: no row with {condition} (COLUMN=VALUE; the columns are {columns})")
        table = table[table[name].astype(str) == value]
    if table.duplicated(KEYS).any():
        further = [name for name in table if name not in (*TYPES, "seeds")]
        raise ValueError(
            f"{path}: several rows for one model, metric and number of labels; choose some by "
            f"{' or '.join(f'--where {name}=VALUE' for name in further) or 'removing the others'}"
        )
    return table


def relative(results: pd.DataFrame, difference: str = "") -> pd.DataFrame:
    """Return a difference of two models in per cent of the second one's error, with `conclusion`.

    The error of open mouth is 1 − ROC AUC, that of a facial action 1 − R²; of the other metrics it is the metric.

    Args:
        results: See `read`.
        difference: "a - b" in the column `model`; default: the first one.

    Raises:
        ValueError: The results have no such difference.
    """
    differences = beyond_chance(results)
    names = list(differences["model"].unique())
    if not names or (difference and difference not in names):
        raise ValueError(
            f"no difference {difference!r} in the results; they have: {', '.join(names) or 'none'}"
        )
    rows = differences[differences["model"] == (difference or names[0])]
    other = str(rows["model"].iloc[0]).split(MINUS, 1)[1]
    base = results[results["model"] == other].set_index(KEYS[1:])["value"]
    value = base.loc[pd.MultiIndex.from_frame(rows[KEYS[1:]])].to_numpy()
    is_error = rows["metric"].isin((*ERRORS, PHOTOGRAPHS)).to_numpy()
    scale = 100 * np.where(is_error, 1, -1) / np.where(is_error, value, 1 - value)
    return rows.assign(**{name: rows[name] * scale for name in BOUNDS})


def draw(rows: pd.DataFrame, names: Mapping[str, str], title: str = "") -> str:
    """Draw a difference as SVG: a column of plots for each number of labels, a line for each metric.

    The wide bar is the 95 % interval over faces, the thin line that over seeds.

    Args:
        rows: See `relative`.
        names: Name of each metric, in the order of the lines.
        title: Title of the x axes; default: the names of the two models.
    """
    ours, other = str(rows["model"].iloc[0]).split(MINUS, 1)
    found = [kind for kind in CONCLUSIONS if kind in set(rows["conclusion"])]
    words = [CONCLUSIONS[kind] for kind in found]
    legend = alt.Legend(title=None, orient="top", columns=len(words))
    data = rows.assign(
        conclusion=rows["conclusion"].map(CONCLUSIONS),
        metric=rows["metric"].map(dict(names)),
        labels=[f"{count:,} labels" for count in rows["labels"]],
    )
    base = alt.Chart().encode(
        y=alt.Y("metric:N", title=None, sort=list(names.values()), axis=alt.Axis(grid=True, labelLimit=220)),
        color=alt.Color(
            "conclusion:N",
            scale=alt.Scale(domain=words, range=[COLOURS[kind] for kind in found]),
            legend=legend,
        ),
    )
    shape = alt.Shape(
        "conclusion:N",
        scale=alt.Scale(domain=words, range=[SHAPES[kind] for kind in found]),
        legend=legend,
    )
    layers = alt.layer(
        alt.Chart().mark_rule(color="#555555", strokeDash=[4, 3]).encode(x=alt.datum(0.0)),
        base.mark_rule(strokeWidth=7, opacity=0.35).encode(x=alt.X("low:Q", title=None), x2="high:Q"),
        base.transform_filter("isValid(datum.seed_low)")
        .mark_rule(strokeWidth=1.5)
        .encode(x=alt.X("seed_low:Q", title=None), x2="seed_high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("value:Q", title=None), shape=shape),
        data=data,
    )
    chart = layers.properties(width=190, height=24 * rows["metric"].nunique()).facet(
        column=alt.Column(
            "labels:N",
            title=title or f"Error of {ours} compared with {other}, in %",
            sort=[f"{count:,} labels" for count in sorted(rows["labels"].unique())],
            header=alt.Header(titleOrient="bottom"),
        )
    )
    spec = chart.configure(font="Liberation Sans", background="white").configure_view(stroke=None)
    return str(vl_convert.vegalite_to_svg(spec.to_dict()))
