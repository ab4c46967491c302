"""Charts over the training steps."""

from __future__ import annotations

import math

import pandas as pd

from fra.report.sections.training import points


def test_scores_are_drawn_where_they_were_measured_only() -> None:
    """The history repeats a score in each row until the next one: drawn so, a change would look sudden."""
    history = pd.DataFrame(
        {"step": [10, 20, 30, 40], "lr": [1.0, 1.0, 1.0, 1.0], "rankme": [math.nan, 28.0, 28.0, 27.0]}
    )
    assert points(history, ["rankme"])["step"].tolist() == [20, 40]
    assert points(history, ["lr"])["step"].tolist() == [10, 20, 30, 40]
