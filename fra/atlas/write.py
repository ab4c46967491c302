"""Makes an atlas: embeddings, map, thumbnails and annotations of faces, in one folder that a browser opens."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from fra.atlas import viewer
from fra.atlas.annotations import Dataset, of_dataset, read_labels, read_table
from fra.atlas.layout import Layout, arrange, check_umap
from fra.atlas.pictures import Pictures, Row, look
from fra.dist import choose_device
from fra.files import locked_folder, sha256
from fra.gallery.embed import embed
from fra.gallery.files import SUFFIXES, Gallery, read
from fra.inference.detection import Detection
from fra.inference.encoder import FaceEncoder, load
from fra.inference.image_files import Skipped
from fra.weights import released


@dataclass(frozen=True)
class Written:
    """What became of an atlas.

    Attributes:
        faces: Number of faces on the map.
        skipped: Images without an embedding, and why; empty where the embeddings were given.
        unreadable: Images without a thumbnail, and why.
        notes: What could not be shown, and why.
    """

    faces: int
    skipped: Skipped = field(default_factory=Skipped)
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def is_embeddings(places: Sequence[str]) -> bool:
    """Whether the places are one file of embeddings."""
    return len(places) == 1 and places[0].endswith(SUFFIXES) and Path(places[0]).is_file()


def make(
    places: Sequence[str],
    weights: Path,
    out: Path,
    *,
    labels: Path | None = None,
    dataset: Dataset | None = None,
    detection: Detection | None = None,
    clusters: int = 10,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "auto",
) -> Written:
    """Write the atlas of faces to a folder.

    A run that was killed while it computed embeddings continues where it stopped.

    Args:
        places: Images (files, folders, glob patterns or tar shards), or one file that `fra embed` wrote.
        weights: Weights file, or the name of released weights.
        out: A new folder, or an atlas, which is replaced.
        labels: CSV file with columns for the map, see `read_labels`.
        dataset: The data set that the images may belong to.
        detection: How faces are found in images; None: each image is one face.
        clusters: Number of clusters.
        seed: Seed of the map.
        batch_size: Images per batch.
        device: "cpu", "cuda" or "auto".

    Raises:
        ValueError: `out` holds other files; a file is not as it should be; no image could be decoded; faces are to be
            found where `places` are embeddings; or another process writes the same atlas.
        FileNotFoundError: A path matches nothing, or the viewer, the weights or the labels are missing.
        ModuleNotFoundError: UMAP is not installed.
    """
    viewer.bundle()
    check_umap()
    if labels is not None:
        read_table(labels)  # its names are compared with the images later, but wrong columns are found now
    if detection is not None and is_embeddings(places):
        raise ValueError(
            f"{places[0]}: holds embeddings, which are used as they are: faces are only found in images"
        )
    if out.exists() and not (out.is_dir() and (viewer.is_atlas(out) or not any(out.iterdir()))):
        raise ValueError(f"{out}: holds something else than an atlas; give a new folder")
    partial = out.absolute().with_name(f".{out.name}.partial")
    made = partial.with_name(
        f".{out.name}.parquet"
    )  # next to it `embed` keeps the parts of a run that was killed
    partial.mkdir(parents=True, exist_ok=True)
    with locked_folder(partial):
        try:
            shutil.rmtree(partial / "atlas", ignore_errors=True)  # of a run that was killed
            skipped = Skipped()
            if is_embeddings(places):
                gallery = Path(places[0])
            else:
                gallery = made
                skipped = embed(
                    places, weights, made, batch_size=batch_size, device=device, detection=detection
                )
            written = write(
                gallery,
                weights,
                partial / "atlas",
                labels,
                dataset,
                clusters,
                seed,
                out.name,
                device,
                batch_size,
            )
            if out.exists():
                shutil.rmtree(out)
            (partial / "atlas").rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            made.unlink(missing_ok=True)
    return Written(written.faces, skipped, written.unreadable, written.notes)


def write(
    gallery: Path,
    weights: Path,
    folder: Path,
    labels: Path | None,
    dataset: Dataset | None,
    clusters: int,
    seed: int,
    title: str,
    device: str,
    batch_size: int,
) -> Written:
    """Write the atlas of a file of embeddings to a new folder; see `make`."""
    known = read(gallery)
    names = known.names
    if not names:
        raise ValueError(f"{gallery}: holds no embedding")
    notes: list[str] = []
    annotations = None if dataset is None else of_dataset(names, dataset)
    keys = names if annotations is None else annotations["key"].tolist()
    columns = pd.DataFrame({"key": pd.Series(names, dtype="string")}) if annotations is None else annotations
    if labels is not None:
        added = read_labels(labels, names, keys)
        columns = pd.concat([columns.drop(columns=set(columns) & set(added)), added], axis=1)
    encoder = encoder_of(known, weights, device, notes)
    boxes = known.rows["box"].to_pylist() if known.faces is not None else [None] * len(names)
    pictures = look([Row(*row) for row in zip(names, boxes, strict=True)], encoder, batch_size)
    if pictures.unreadable:
        name, reason = next(iter(pictures.unreadable.items()))
        notes.append(f"{len(pictures.unreadable):,} images have no thumbnail; {name}: {reason}")
    layout = arrange(known.embeddings_ND, clusters, seed)
    table = table_of(known, columns, pictures, layout)
    viewer.write(table, labels_of(layout, pictures), f"FRA atlas: {title}", folder)
    return Written(len(names), unreadable=pictures.unreadable, notes=notes)


def encoder_of(known: Gallery, weights: Path, device: str, notes: list[str]) -> FaceEncoder | None:
    """The model that the embeddings come from, for the shares of its masks; None, and a note, where it is another."""
    try:
        if known.weights != sha256(released.find(weights)):
            notes.append(f"no shares of masks: the embeddings were made with other weights than {weights}")
            return None
    except FileNotFoundError:
        notes.append(f"no shares of masks: {weights} is missing: give the weights that they were made with")
        return None
    encoder = load(weights).to(choose_device(device))
    if encoder.neck is None:
        notes.append(f"no shares of masks: {weights} holds the backbone only, or was trained without regions")
    return encoder


def table_of(known: Gallery, columns: pd.DataFrame, pictures: Pictures, layout: Layout) -> pa.Table:
    """The table of the viewer, one row per face.

    Columns are `key` (what a selection lists), `image` (where it differs), `face`, `thumbnail`, `cluster`, the
    annotations, the measurements, `nearest_distance` (cosine distance to the nearest other face: 0 for a copy),
    `mean_distance` (to the 15 nearest: large for an outlier), `x` and `y`; the viewer hides `__row` and `__neighbours`.
    """
    number = known.rows.num_rows
    arrays: dict[str, pa.Array | pa.ChunkedArray] = {"key": pa.array(columns["key"], pa.string())}
    if columns["key"].tolist() != known.names:
        arrays["image"] = pa.array(known.names)
    if known.faces is not None:
        arrays["face"] = pa.array(known.faces, pa.int32())
    arrays["thumbnail"] = pa.array(
        [content and {"bytes": content, "path": "face.jpg"} for content in pictures.thumbnails],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    arrays["cluster"] = pa.array([f"cluster {number}" for number in layout.cluster_N])
    for name in columns.columns.drop("key"):
        if columns[name].notna().any():
            arrays[name] = pa.Array.from_pandas(columns[name])
    for name, values_N in pictures.measurements.items():
        if not np.isnan(values_N).all():
            arrays[name] = pa.array(values_N, from_pandas=True)
    if layout.distance_NK.shape[1]:
        arrays["nearest_distance"] = pa.array(layout.distance_NK[:, 0])
        arrays["mean_distance"] = pa.array(layout.distance_NK.mean(axis=1))
    arrays["x"], arrays["y"] = map(pa.array, layout.position_N2.T)
    arrays["__row"] = pa.array(np.arange(number, dtype=np.int32))
    arrays["__neighbours"] = pa.array(
        [
            {"ids": ids, "distances": distances}
            for ids, distances in zip(layout.neighbour_NK.tolist(), layout.distance_NK.tolist(), strict=True)
        ],
        pa.struct([("ids", pa.list_(pa.int32())), ("distances", pa.list_(pa.float32()))]),
    )
    return pa.table(arrays)


def labels_of(layout: Layout, pictures: Pictures) -> list[dict[str, object]]:
    """The typical face of each cluster, drawn where it is on the map."""
    sizes_C = np.bincount(layout.cluster_N)
    return [
        viewer.picture_label(
            float(layout.position_N2[row, 0]), float(layout.position_N2[row, 1]), content, int(size)
        )
        for row, size in zip(layout.typical_C.tolist(), sizes_C, strict=True)
        if (content := pictures.thumbnails[row]) is not None
    ]
