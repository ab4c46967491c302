"""The section on pre-training: losses and collapse indicators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fra.inference import encoder
from fra.report import charts, faces
from fra.report.artifacts import Run
from fra.report.elements import Chart, curve


def training_facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what is known of the run of pre-training."""
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


def training_charts(history: pd.DataFrame) -> list[Chart]:
    """Return charts of losses, learning rate and collapse indicators over the steps of pre-training."""
    losses = {"total": "Total", "global": "Global", "region": "Region", "relation": "Relation"}
    health = {"embedding_std": "Spread of embeddings", "mask_entropy": "Entropy of masks"}
    described = [
        ("Losses", losses, "Loss", ".3f", "Means over the steps since the point before."),
        ("Learning rate", {"lr": "Learning rate"}, "", ".2g", ""),
        (
            "Masks in use",
            {"masks_used": "Masks in use"},
            "",
            ".2f",
            "As many masks as would share the pixels equally: 1 when one mask takes all.",
        ),
        (
            "Collapse indicators",
            health,
            "",
            ".3f",
            "Spread: about 1 when embeddings fill the sphere, 0 when all images look the same. "
            "Entropy: 1 when no pixel prefers a mask, 0 when each is certain.",
        ),
    ]
    if "knn" in history and history["knn"].notna().any():
        note = "Balanced accuracy of a vote among nearest neighbours of other people; on the side, no test people."
        described.append(("Online probe", {"knn": "Nearest neighbours"}, "", ".3f", note))
    history = charts.binned(
        history[["step", *(name for _, columns, *_ in described for name in columns)]], "step"
    )
    return [
        curve(title, history, "step", "Step", columns, y_title, form, note=note)
        for title, columns, y_title, form, note in described
    ]


def see_regions(run: Run) -> faces.Regions:
    """The masks on held-out faces. Raises ValueError where weights or shards are missing."""
    if run.weights is None:
        raise ValueError("The weights of the whole model (model.safetensors) are missing.")
    if run.shards is None:
        raise ValueError("The shards, which hold the photographs, are missing.")
    views = run.provenance.get("params", {}).get("views")
    return faces.see_regions(encoder.load(run.weights), run.manifest, run.shards, views)
