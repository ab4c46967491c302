"""True outputs of tasks from manifest rows: one column per output, NaN where unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fra.transfer.heads import Array


def label_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return labels or measures of the manifest as floats, NaN where unknown.

    Raises:
        ValueError: The manifest has no such label.
    """
    prefixes = ("label.", "measure.")
    column_of = {name.partition(".")[2]: name for name in frame.columns if name.startswith(prefixes)}
    if missing := [name for name in names if name not in column_of]:
        raise ValueError(
            f"the manifest has no label {missing[0]!r}; it has: {', '.join(sorted(column_of)) or 'none'} "
            "(set transfer.labels)"
        )
    columns = {
        name: frame[column_of[name]].astype("Float64").to_numpy(float, na_value=np.nan) for name in names
    }
    return pd.DataFrame(columns, index=frame.index)


def binary_labels(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return labels with the values 1 (yes) and 0 (no) as floats, NaN where unknown.

    Raises:
        ValueError: The manifest has no such label, or the label has another value.
    """
    labels = label_columns(frame, names)
    for name, values in labels.items():
        if other := sorted(set(values.dropna()) - {0.0, 1.0}):
            raise ValueError(
                f"label {name!r} has the value {other[0]:g}: attributes and action units are 1 (yes) or 0 (no); "
                "write a column of ones and zeros, or evaluate it as an expression (one of several classes)"
            )
    return labels


def one_hot_classes(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return one label of several classes, one-hot; the columns are the classes, as text.

    Raises:
        ValueError: There is not exactly one label, or it has fewer than two classes.
    """
    if len(names) != 1:
        raise ValueError(
            f"expression is one label of several classes, not {len(names)} labels: {', '.join(names)}"
        )
    label = label_columns(frame, names)[names[0]]
    classes = np.sort(label.dropna().unique())
    if len(classes) < 2:
        raise ValueError(f"label {names[0]!r} has {len(classes)} class; at least two are needed")
    one_hot = (label.to_numpy()[:, None] == classes).astype(float)
    one_hot[label.isna()] = np.nan
    return pd.DataFrame(one_hot, index=frame.index, columns=[f"{value:g}" for value in classes])


def directions(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return pitch and yaw (two labels, in degrees) as unit vectors: columns x, y, z.

    The convention of MPIIGaze (Zhang et al.): pitch and yaw 0 look along −z, positive pitch up, positive yaw to the
    left of the image.
    """
    pitch, yaw = np.radians(label_columns(frame, names).to_numpy()).T
    vector = [-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)]
    return pd.DataFrame(np.stack(vector, axis=1), index=frame.index, columns=list("xyz"))


def landmark_columns(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return landmarks as fractions of the image's width and height: columns x0, y0, x1 and so on.

    Raises:
        ValueError: No image has landmarks, or images differ in their number.
    """
    lengths = sorted(int(length) for length in frame["landmarks"].dropna().map(len).unique())
    if len(lengths) != 1:
        found = " and ".join(str(length // 2) for length in lengths) or "none"
        raise ValueError(
            f"alignment needs the same number of landmarks on each image; the manifest has {found}"
        )
    unknown = np.full(lengths[0], np.nan)
    pixels = np.stack([unknown if row is None else np.asarray(row, float) for row in frame["landmarks"]])
    columns = [f"{axis}{point}" for point in range(lengths[0] // 2) for axis in "xy"]
    return pd.DataFrame(pixels / coordinate_scales(frame), index=frame.index, columns=columns)


def coordinate_scales(frame: pd.DataFrame) -> Array:
    """Return the width or height in pixels that belongs to each coordinate: (N, 2·landmarks)."""
    points = len(frame["landmarks"].dropna().iloc[0]) // 2
    return np.tile(frame[["width", "height"]].to_numpy(dtype=float), (1, points))
