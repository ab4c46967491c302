from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from fra.report import charts

COLOURS = ["var(--series-0)", "var(--series-1)"]


def frame() -> pd.DataFrame:
    return pd.DataFrame({"step": [1, 2, 3], "a": [3.0, 2.0, 1.0], "b": [0.5, np.nan, 0.25]})


def draw(**changes: object) -> str:
    options = {
        "x": "step",
        "y": {"a": "Loss <a>", "b": "B"},
        "colours": COLOURS,
        "x_title": "Step",
        "y_title": "Loss",
    }
    return str(charts.curves(frame(), **{**options, **changes}))  # type: ignore[arg-type]


def test_readings_have_all_values_at_their_position() -> None:
    marks = [
        mark.get("aria-label") for mark in ElementTree.fromstring(draw()).iter() if mark.get("aria-label")
    ]
    assert marks == ["Step 1; Loss <a>: 3; B: 0.5", "Step 2; Loss <a>: 2", "Step 3; Loss <a>: 1; B: 0.25"]


def test_charts_scale_and_use_the_colours_of_the_page() -> None:
    root = ElementTree.fromstring(draw())
    assert root.get("viewBox")
    assert root.get("width") is None
    painted = {mark.get(name) for mark in root.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert painted <= {"transparent", *COLOURS, charts.INK, charts.MUTED, charts.GRID}


def test_charts_have_no_ids_that_could_collide() -> None:
    assert not re.findall(r'\bid="', draw() + draw(diagonal=True))


def test_same_data_give_the_same_bytes() -> None:
    assert draw() == draw()


def test_logarithmic_axis_has_a_tick_at_each_position() -> None:
    table = pd.DataFrame({"fraction": [1.0, 10.0, 100.0], "a": [0.5, 0.6, 0.7]})
    svg = charts.curves(
        table,
        x="fraction",
        y={"a": "A"},
        colours=COLOURS,
        x_title="Labels",
        y_title="AUC",
        from_zero=False,
        log_x=True,
    )
    ticks = [float(x) for x in re.findall(r'<line transform="translate\((\d+),0\)" x2="0" y2="5"', str(svg))]
    assert ticks == [0, charts.WIDTH / 2, charts.WIDTH]


def test_intervals_keep_the_order_of_rows_and_show_their_bounds() -> None:
    table = pd.DataFrame(
        [
            {"row": row, "series": series, "mean": 0.5, "low": 0.4, "high": 0.6}
            for row in ("Smiling", "Beard")
            for series in ("FRA", "Random")
        ]
    )
    root = ElementTree.fromstring(str(charts.intervals(table, colours=COLOURS, x_title="AP")))
    marks = [mark.get("aria-label") for mark in root.iter() if mark.get("aria-label")]
    assert marks[0] == "Smiling; FRA: 0.500; 95 % interval: 0.400 to 0.600"
    assert [mark.split("; ")[0] for mark in marks if mark] == ["Smiling", "Smiling", "Beard", "Beard"]


def test_binning_keeps_means_and_ends() -> None:
    long = pd.DataFrame({"step": np.arange(1, 1001), "loss": np.arange(1000.0)})
    short = charts.binned(long, "step", bins=100)
    assert len(short) == 100
    assert short["step"].iloc[-1] == 1000
    assert short["loss"].iloc[0] == np.arange(10).mean()
    assert charts.binned(long.iloc[:5], "step")["loss"].tolist() == [0, 1, 2, 3, 4]
