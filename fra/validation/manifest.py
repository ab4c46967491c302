"""Reads a manifest column by column, and reduces landmarks to the values that rules need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fra.faces.landmarks import EYES

REQUIRED: dict[str, type] = {
    "key": str,
    "split": str,
    "person": str,
    "sha256": str,
    "bytes": int,
    "width": int,
    "height": int,
    "mode": str,
    "source": str,
    "shard": str,
    "index": int,
    "error": str,
}
"""The columns of every manifest and their types."""
BATCH = 65_536
"""Number of rows read at a time."""


@dataclass(frozen=True)
class Manifest:
    """A manifest in memory.

    Attributes:
        arrow: All columns, landmarks included.
        table: The required columns, labels, numbers known of an image or its photograph (measure., photo., face.) and
            landmark measurements, without the landmarks themselves.
        missing: Names of columns that are missing or have a wrong type.
    """

    arrow: pa.Table
    table: pd.DataFrame
    missing: list[str]

    def by_shard(self) -> dict[str, NDArray[np.int64]]:
        """Returns the row positions of each shard, in the manifest's order."""
        codes, names = pd.factorize(self.table["shard"], sort=True)
        order = np.argsort(codes, kind="stable")
        cuts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        return {str(name): order[cuts[place] : cuts[place + 1]] for place, name in enumerate(names)}

    def rows_of(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        """Returns some rows with all columns, landmarks included."""
        table: pd.DataFrame = self.arrow.take(pa.array(rows)).to_pandas()
        return table

    @property
    def labels(self) -> list[str]:
        """The names of the label columns."""
        return [name for name in self.table.columns if name.startswith("label.")]


def read(path: Path) -> Manifest:
    """Reads a manifest; required columns that are missing or mistyped are filled with nulls and named in `missing`.

    Raises:
        ValueError: The file is not a parquet table.
    """
    try:
        # in batches, because the lists of a large row group take five times their size
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            arrow = pa.Table.from_batches(file.iter_batches(BATCH), file.schema_arrow)
        names = arrow.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable manifest: {' '.join(str(error).split())}") from None
    labels = [name for name in names if name.startswith("label.")]
    missing = []
    for name, kind in {**REQUIRED, **dict.fromkeys(labels, float)}.items():
        place = arrow.column_names.index(name) if name in arrow.column_names else -1
        if place >= 0 and kind is float:
            arrow = with_whole_numbers(arrow, place)
        if place >= 0 and fits(arrow.schema.field(name).type, kind):
            continue
        missing.append(name)
        nothing = pa.nulls(len(arrow), pa.string() if kind is str else pa.int64())
        arrow = arrow.append_column(name, nothing) if place < 0 else arrow.set_column(place, name, nothing)
    if "landmarks" not in arrow.column_names:
        arrow = arrow.append_column("landmarks", pa.nulls(len(arrow), pa.list_(pa.float32())))
    known = [
        name
        for name in names
        if name.startswith(("measure.", "photo.", "face.")) and is_number(arrow.schema.field(name).type)
    ]
    plain = arrow.select([*REQUIRED, *labels, *known]).to_pandas(
        types_mapper={pa.int64(): pd.Int64Dtype()}.get
    )
    return Manifest(arrow, plain.assign(**landmark_facts(arrow)), missing)


def with_whole_numbers(arrow: pa.Table, place: int) -> pa.Table:
    """Returns the table with the label column at `place` as integers, NaN as null, where it has whole floats only.

    Missing values turn whole numbers into floats in pandas. A column with fractions is no label and stays a float.
    """
    column = arrow.column(place)
    if not pa.types.is_floating(column.type):
        return arrow
    values = column.to_numpy()
    missing = np.isnan(values)
    if not np.array_equal(values[~missing], np.round(values[~missing])) or np.isinf(values).any():
        return arrow
    whole = pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)
    return arrow.set_column(place, arrow.column_names[place], whole)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column has numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def fits(kind: pa.DataType, wanted: type) -> bool:
    """Whether a column has the wanted type; labels (float) must be whole numbers, see `with_whole_numbers`."""
    if wanted is str:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))
    return bool(pa.types.is_integer(kind))


def landmark_facts(arrow: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Returns measurements of landmarks, one value per row, NaN where there are no landmarks.

    Returns:
        landmark_count: The number of points.
        landmarks_finite: 1 where all coordinates are finite numbers, else 0.
        landmarks_together: The largest number of points at one and the same place.
        landmarks_beyond: How far the outermost point lies outside the image, in image widths or heights.
        eye_distance: The distance of the eyes in image widths, for the numbers of landmarks in `EYES`.
        roll: The angle in degrees of the line from the left eye to the right; beyond 90 they are swapped.
    """
    names = (
        *("landmark_count", "landmarks_finite", "landmarks_together", "landmarks_beyond"),
        *("eye_distance", "roll"),
    )
    facts = {name: np.full(len(arrow), np.nan, np.float32) for name in names}
    start = 0
    for batch in arrow.select(["landmarks", "width", "height"]).to_batches(max_chunksize=BATCH):
        lists = batch.column("landmarks")
        if pa.types.is_null(lists.type):
            start += len(batch)
            continue
        lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
        size_N2 = np.stack(
            [
                batch.column(name).to_numpy(zero_copy_only=False).astype(np.float32)
                for name in ("width", "height")
            ],
            axis=1,
        )
        for length in np.unique(lengths[~np.isnan(lengths)]) if len(lengths) else ():
            rows = np.flatnonzero(lengths == length)
            facts["landmark_count"][start + rows] = length / 2
            if length < 2 or length % 2:
                facts["landmarks_finite"][start + rows] = 0
                continue
            point_NL2 = (
                lists.take(pa.array(rows)).flatten().to_numpy(zero_copy_only=False).astype(np.float32)
            ).reshape(len(rows), -1, 2)
            measure_points(point_NL2, size_N2[rows], start + rows, facts)
        start += len(batch)
    return facts


def measure_points(
    point_NL2: NDArray[np.float32],
    size_N2: NDArray[np.float32],
    rows: NDArray[np.int64],
    facts: dict[str, NDArray[np.float32]],
) -> None:
    """Measures landmarks of rows that have the same number of them, and stores the measurements in `facts`.

    Args:
        point_NL2: Landmarks in pixels.
        size_N2: Width and height of the images in pixels.
        rows: The rows' positions in the manifest.
        facts: The measurements by name, updated in place.
    """
    facts["landmarks_finite"][rows] = np.isfinite(point_NL2).all(axis=(1, 2))
    facts["landmarks_together"][rows] = largest_group(point_NL2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_NL2 = point_NL2 / size_N2[:, None]
        facts["landmarks_beyond"][rows] = np.maximum(-share_NL2, share_NL2 - 1).max(axis=(1, 2)).clip(0)
        if point_NL2.shape[1] in EYES:
            left, right = EYES[point_NL2.shape[1]]
            apart_N2 = point_NL2[:, right] - point_NL2[:, left]
            facts["eye_distance"][rows] = np.hypot(*apart_N2.T) / size_N2[:, 0]
            facts["roll"][rows] = np.abs(np.degrees(np.arctan2(apart_N2[:, 1], apart_N2[:, 0])))


def largest_group(point_NL2: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the largest number of points of a row that are at one and the same place: (N,)."""
    place_NL = np.sort(point_NL2[..., 0] + 1j * point_NL2[..., 1], axis=1)
    largest_N = np.ones(len(place_NL), dtype=np.int64)
    run_N = np.ones(len(place_NL), dtype=np.int64)
    for point in range(1, place_NL.shape[1]):
        run_N = np.where(place_NL[:, point] == place_NL[:, point - 1], run_N + 1, 1)
        largest_N = np.maximum(largest_N, run_N)
    return largest_N
