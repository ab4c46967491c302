"""The history of a run: the rows of history.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from fra.train.monitoring.collapse import INDICATORS
from fra.train.monitoring.representation import MEASURES
from fra.train.step import LOSSES

COLUMNS = ("step", "epoch", "lr", "target_momentum", *LOSSES, *INDICATORS, "knn", *MEASURES)
"""The columns of history.csv.

Losses are means over the steps since the previous row; collapse indicators are those of the row's own step; `knn` is
the latest score of the kNN probe, and the last columns are the latest label-free measures, empty where there are none.
"""
SPEED = "images_per_second"
"""The key of a row that is no column: without times, two equal runs write equal files."""


def as_csv(history: Sequence[Mapping[str, float]]) -> str:
    """Returns the rows as CSV text with the columns `COLUMNS`, without `SPEED`.

    Raises:
        ValueError: A row has another key.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: value for name, value in row.items() if name != SPEED} for row in history)
    return text.getvalue()
