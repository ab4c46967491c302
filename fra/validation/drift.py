"""Profiles of a data set as a whole, and their distance from the profile of an earlier version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

FEATURES = ("brightness", "contrast", "sharpness", "width", "height", "bytes")
POINTS = 1000
"""Number of quantiles stored per feature."""
ALPHA = 0.001
"""The probability that two samples of one distribution are further apart than the critical distance."""


def profile(table: pd.DataFrame) -> dict[str, Any]:
    """Returns the quantiles of `FEATURES` over the readable images, and the counts of each label's values.

    Missing values of a label are counted as -1.
    """
    readable = table[table["readable"] == 1]
    shares = (np.arange(POINTS) + 0.5) / POINTS
    features = {
        name: [
            round(float(value), 4)
            for value in np.quantile(readable[name].dropna().astype(float), shares, method="inverted_cdf")
        ]
        for name in FEATURES
        if readable[name].notna().any()
    }
    labels = {
        name: {str(value): int(count) for value, count in sorted(counts.items())}
        for name in table.columns
        if name.startswith("label.")
        for counts in [table[name].fillna(-1).astype(int).value_counts().to_dict()]
    }
    return {"images": len(readable), "features": features, "labels": labels}


def read(path: Path, dataset: str) -> dict[str, Any] | None:
    """Reads a data set's reference profile from a file of profiles by name; None where the file has none for it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It contains no profiles.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        reference = content.get(dataset)
        if reference is not None and not {"images", "features", "labels"} <= set(reference):
            raise ValueError(f"{dataset!r} has no images, features and labels")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; see validate.reference") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path}: contains no profiles of data sets ({error}); see validate.reference"
        ) from None
    return reference  # type: ignore[no-any-return]


def compare(current: dict[str, Any], reference: dict[str, Any], limit: float) -> pd.DataFrame:
    """Returns the distance of two profiles, one row per feature and label: source, distance, allowed, excess.

    The distance is Kolmogorov and Smirnov's, 0 to 1; it is 1 for a feature or label that only one profile has. Allowed
    is `limit`, or the critical distance at level `ALPHA` where samples are so small that chance exceeds the limit.
    """
    n, m = max(current["images"], 1), max(reference["images"], 1)
    critical = float(np.sqrt(-0.5 * np.log(ALPHA / 2) * (n + m) / (n * m)))
    rows = []
    for name in sorted({*current["features"], *reference["features"]}):
        now, before = current["features"].get(name), reference["features"].get(name)
        distance = 1.0 if now is None or before is None else float(ks_2samp(now, before).statistic)
        rows.append((name, distance))
    for name in sorted({*current["labels"], *reference["labels"]}):
        rows.append((name, count_distance(current["labels"].get(name), reference["labels"].get(name))))
    table = pd.DataFrame(rows, columns=["source", "distance"])
    return table.assign(allowed=max(limit, critical), excess=table["distance"] - max(limit, critical))


def count_distance(current: dict[str, int] | None, reference: dict[str, int] | None) -> float:
    """Returns the Kolmogorov–Smirnov distance of two distributions given as counts by value."""
    if not current or not reference:
        return 1.0
    values = sorted({*current, *reference}, key=int)
    now, before = (
        np.array([counts.get(value, 0) for value in values], float) for counts in (current, reference)
    )
    return float(np.abs((now / now.sum()).cumsum() - (before / before.sum()).cumsum()).max())
