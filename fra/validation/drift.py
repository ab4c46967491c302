"""How a data set looks as a whole, and how far that is from how an earlier version looked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

FEATURES = ("brightness", "contrast", "sharpness", "width", "height", "bytes")
POINTS = 1000
ALPHA = 0.001
"""Two samples of one distribution are further apart than the critical distance once in so many times."""


def profile(table: pd.DataFrame) -> dict[str, Any]:
    """Quantiles of `FEATURES` over the images that can be read, and how often each label has each value.

    A label's missing values are counted under -1.
    """
    seen = table[table["readable"] == 1]
    shares = (np.arange(POINTS) + 0.5) / POINTS
    features = {
        name: [
            round(float(value), 4)
            for value in np.quantile(seen[name].dropna().astype(float), shares, method="inverted_cdf")
        ]
        for name in FEATURES
        if seen[name].notna().any()
    }
    labels = {
        name: {str(value): int(count) for value, count in sorted(counts.items())}
        for name in table.columns
        if name.startswith("label.")
        for counts in [table[name].fillna(-1).astype(int).value_counts().to_dict()]
    }
    return {"images": len(seen), "features": features, "labels": labels}


def read(path: Path, dataset: str) -> dict[str, Any] | None:
    """The reference profile of a data set: the file maps names of sets to profiles; None where it has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no profiles.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get(dataset)
        if found is not None and not {"images", "features", "labels"} <= set(found):
            raise ValueError(f"{dataset!r} has no images, features and labels")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; see validate.reference") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path}: holds no profiles of data sets ({error}); see validate.reference"
        ) from None
    return found  # type: ignore[no-any-return]


def compare(now: dict[str, Any], before: dict[str, Any], limit: float) -> pd.DataFrame:
    """One row a feature or label: the Kolmogorov–Smirnov distance (0…1) of its distributions, and what is allowed.

    Allowed is `limit`, or the critical distance at level `ALPHA` where the samples are so small that chance alone
    reaches further. A feature or label that only one of the two has is at distance 1.
    """
    n, m = max(now["images"], 1), max(before["images"], 1)
    critical = float(np.sqrt(-0.5 * np.log(ALPHA / 2) * (n + m) / (n * m)))
    rows = []
    for name in sorted({*now["features"], *before["features"]}):
        one, other = now["features"].get(name), before["features"].get(name)
        distance = 1.0 if one is None or other is None else float(ks_2samp(one, other).statistic)
        rows.append((name, distance))
    for name in sorted({*now["labels"], *before["labels"]}):
        rows.append((name, apart(now["labels"].get(name), before["labels"].get(name))))
    table = pd.DataFrame(rows, columns=["source", "distance"])
    return table.assign(allowed=max(limit, critical), excess=table["distance"] - max(limit, critical))


def apart(now: dict[str, int] | None, before: dict[str, int] | None) -> float:
    """The same distance for counted values."""
    if not now or not before:
        return 1.0
    values = sorted({*now, *before}, key=int)
    one, other = (np.array([counts.get(value, 0) for value in values], float) for counts in (now, before))
    return float(np.abs((one / one.sum()).cumsum() - (other / other.sum()).cumsum()).max())
