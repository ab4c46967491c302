"""The history of a run: the rows of history.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from fra.train.monitoring.representation import MEASURES

COLUMNS = (
    "step",
    "epoch",
    "lr",
    "target_momentum",
    "total",
    "global",
    "region",
    "relation",
    "embedding_std",
    "mask_entropy",
    "masks_used",
    "knn",
    *MEASURES,
)
"""The columns of history.csv.

Losses are means over the steps since the previous row; collapse indicators are those of the row's own step; `knn` is
the latest score of the kNN probe, and the last columns are the latest label-free measures, empty where there are none.
Times are left out, so that two equal runs write equal files.
"""


def as_csv(history: Sequence[Mapping[str, float]]) -> str:
    """Returns the rows as CSV text with the columns `COLUMNS`; other keys are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
