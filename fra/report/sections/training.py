"""Sections on pre-training: losses, collapse indicators, mask regions, features of faces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fra.inference import encoder
from fra.inference.encoder import FaceEncoder
from fra.report import charts, faces, features
from fra.report.artifacts import Run
from fra.report.elements import Chart, Table, curve


def training_facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of the steps, epochs, rollbacks and device of pre-training, as far as recorded."""
    facts = [
        ("step", "Steps", ",.0f"),
        ("epoch", "Last epoch", ".0f"),
        ("rollbacks", "Rollbacks", ".0f"),
    ]
    shown = [
        (label, format(metrics[name], form)) for name, label, form in facts if metrics.get(name) is not None
    ]
    device = [str(metrics[name]) for name in ("device", "precision") if metrics.get(name)]
    return [*shown, ("Device", ", ".join(device))] if device else shown


def training_charts(history: pd.DataFrame, measured_on: str = "val") -> list[Chart]:
    """Return charts over the training steps: losses, learning rate, collapse indicators, online probe, measures.

    Args:
        history: The rows of history.csv.
        measured_on: The split whose images the label-free measures are of.
    """
    losses = {"total": "Total", "global": "Global", "region": "Region", "relation": "Relation"}
    health = {"embedding_std": "Spread of embeddings", "mask_entropy": "Entropy of masks"}
    described = [
        ("Losses", losses, "Loss", ".3f", "Each point is the mean over the steps since the previous one."),
        ("Learning rate", {"lr": "Learning rate"}, "", ".2g", ""),
        (
            "Masks in use",
            {"masks_used": "Masks in use"},
            "",
            ".2f",
            "Effective number of masks: 1 if one mask has all pixels, the number of masks if all have equally many.",
        ),
        (
            "Collapse indicators",
            health,
            "",
            ".3f",
            "Spread: about 1 if embeddings are spread over the sphere, 0 if they are equal for all images. "
            "Entropy: 1 if all masks are equally probable at each pixel, 0 if each pixel is assigned with certainty.",
        ),
    ]
    if "knn" in history and history["knn"].notna().any():
        note = (
            "Balanced accuracy of k-nearest-neighbour classification, with neighbours of other people. "
            "For monitoring only; it uses no test subjects."
        )
        described.append(("Online probe", {"knn": "Nearest neighbours"}, "", ".3f", note))
    if "rankme" in history and history["rankme"].notna().any():
        images = "validation" if measured_on == "val" else "training"
        described += [
            (
                title,
                columns,
                "",
                form,
                f"{note} Measured without labels on {images} images; no test subjects.",
            )
            for title, columns, form, note in MEASURED
        ]
    return [
        curve(title, points(history, columns), "step", "Step", columns, y_title, form, note=note)
        for title, columns, y_title, form, note in described
    ]


def points(history: pd.DataFrame, columns: Collection[str]) -> pd.DataFrame:
    """Return the rows of a chart: of scores, which the history repeats until the next ones, those with new values."""
    rows = history[["step", *columns]]
    if not SCORES.isdisjoint(columns):
        values = rows[[*columns]]
        rows = rows[values.ne(values.shift()).any(axis=1) & values.notna().any(axis=1)]
    return charts.binned(rows, "step")


MEASURED = [
    (
        "Effective rank of features",
        {"rankme": "RankMe"},
        ".1f",
        "RankMe: the number of directions in which features of different faces differ. Higher is usually better; a "
        "fall shows that features collapse.",
    ),
    (
        "Alignment and uniformity",
        {"alignment": "Alignment", "uniformity": "Uniformity"},
        ".2f",
        "Alignment: mean squared distance between two views of a face, 0 if equal, 2 if unrelated. Uniformity: how "
        "evenly faces are spread over the sphere, 0 if all are alike, about −4 if evenly. Lower is better for both, "
        "but one alone says little.",
    ),
    (
        "Decay of eigenvalues",
        {"alpha_req": "α-ReQ"},
        ".2f",
        "α-ReQ: the exponent by which the variance falls from one direction of the features to the next. Values near "
        "1 are best; larger ones mean that few directions carry nearly everything.",
    ),
]
"""Title, columns, format and meaning of the charts of the label-free measures."""

SCORES = {"knn", *(name for _, columns, *_ in MEASURED for name in columns)}
"""Columns of the history that have a new value every few rows only."""

MASKS_FROM = {
    "pretrained": "heatmaps of this run",
    "start": "heatmaps before this run",
    "random": "heatmaps of untrained networks",
    "features": "k-means of this backbone's features",
    "place": "fixed cells, the same on every face",
    "colours": "k-means of colours",
}
"""How masks are made, by row of the region quality, in the order in which the page lists them."""


def region_table(quality: Mapping[str, Any]) -> Table:
    """Return a table of how well masks match facial parts, other crops and other people, one row for each method."""
    metrics = {
        "nmi": "Parts (NMI)",
        "view_kappa": "Crops (kappa)",
        "people_kappa": "People (kappa)",
    }
    names = [name for name in MASKS_FROM if name in quality] + sorted(set(quality) - set(MASKS_FROM))
    return Table(
        "How well masks agree with facial parts, with those of another crop, and between people",
        ["Masks from", *metrics.values()],
        [
            [MASKS_FROM.get(name, name), *(f"{quality[name][metric]:.3f}" for metric in metrics)]
            for name in names
        ],
    )


def load_model(run: Run) -> tuple[FaceEncoder, Path]:
    """Return the model of a run, and the folder of the photographs.

    Raises:
        ValueError: Weights or shards are missing.
    """
    if run.weights is None:
        raise ValueError("The weights of the whole model (model.safetensors) are missing.")
    if run.shards is None:
        raise ValueError("The shards, which contain the photographs, are missing.")
    return encoder.load(run.weights), run.shards


def regions(run: Run) -> faces.Regions:
    """Return the mask regions of held-out faces; raises ValueError where weights or shards are missing."""
    model, shards = load_model(run)
    views = run.provenance.get("params", {}).get("views")
    return faces.draw_regions(model, run.manifest, shards, views)


def compared_faces(run: Run) -> features.Features:
    """Return typical and unusual held-out faces; raises ValueError where weights or shards are missing."""
    model, shards = load_model(run)
    return features.draw_features(model, run.manifest, shards)
