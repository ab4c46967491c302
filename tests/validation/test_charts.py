"""Charts and contact sheets of Data Docs."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fra.validation.page import charts, sheet


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(100, 20, 5000),
        np.full(50, 92.0),
        np.array([0.0]),
        np.array([3e-7, 4e-7]),
        np.array([64.0, 64, 65, 9000, 20_000]),
        np.array([-5.0, np.nan, 7.5, np.inf]),
    ],
    ids=["normal", "equal", "zero", "tiny", "skewed", "not finite"],
)
def test_each_value_is_in_one_bar_and_bins_are_round(values: np.ndarray) -> None:
    chart = charts.histogram("Width", pd.Series(values), (None, None))
    assert chart is not None
    assert sum(count for _, count in chart.bars) == np.isfinite(values).sum()
    assert charts.LEAST_BINS <= len(chart.bars) <= charts.BINS + 4
    assert f"{np.isfinite(values).sum():,} values" in chart.summary
    assert "nan" not in chart.svg


def test_limits_are_drawn_and_values_beyond_them_counted() -> None:
    values = pd.Series(np.arange(100) / 100)
    chart = charts.histogram("Score", values, (0.2, 0.905))
    assert chart is not None
    assert chart.svg.count('class="limit"') == 2
    assert "20 below the limit 0.2; 9 above the limit 0.905" in chart.summary
    far = charts.histogram("Score", values, (None, 7.0))
    assert far is not None
    assert 'class="limit"' not in far.svg


def test_whole_numbers_have_bars_of_their_own() -> None:
    chart = charts.histogram("Images per person", pd.Series([1, 1, 1, 2, 4]), (None, None))
    assert chart is not None
    assert {name: count for name, count in chart.bars if count} == {"1": 3, "2": 1, "4": 1}


def test_names_are_escaped_and_long_lists_cut() -> None:
    chart = charts.bars("<b>", pd.Series({"<script>": 3, **{str(number): 1 for number in range(60)}}))
    assert "<script" not in chart.svg
    assert len(chart.bars) == charts.CLASSES
    assert chart.summary == "63 images, the first 40 of 61"


def test_nothing_is_drawn_without_values() -> None:
    assert charts.histogram("Yaw", pd.Series([np.nan, np.nan]), (None, 3.0)) is None


def test_a_sheet_is_spread_over_the_rows() -> None:
    rows = np.arange(0, 10_000, 7)
    shown = sheet.spread(rows)
    assert len(shown) == sheet.EXAMPLES
    assert (shown[0], shown[-1]) == (rows[0], rows[-1])
    assert np.all(np.diff(shown) > 0)
    assert sheet.spread(rows[:5]).tolist() == rows[:5].tolist()


def test_boxes_are_drawn_where_the_face_is() -> None:
    grey = np.full((200, 100, 3), 128, np.uint8)
    corners = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.5], [0.25, 0.5]])

    def pixels(uri: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)

    plain, boxed = pixels(sheet.thumbnail(grey)), pixels(sheet.thumbnail(grey, [corners]))
    assert plain.shape == boxed.shape == (112, 56, 3)
    rows, columns = np.nonzero(np.abs(boxed - plain).max(axis=2) > 60)
    assert abs(rows.min() - 28) <= 2
    assert abs(rows.max() - 56) <= 2
    assert abs(columns.min() - 14) <= 2
    assert abs(columns.max() - 42) <= 2
