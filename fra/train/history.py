"""The history of a run: the rows of history.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

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
)
"""Of history.csv, which is the same whenever the run is: no times. Losses are means since the row before; the signs of
collapse are those of the row's step; `knn` is the probe's latest score, empty without a probe."""


def as_csv(history: Sequence[Mapping[str, float]]) -> str:
    """The history as text: one row a reading, `COLUMNS` in order."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
