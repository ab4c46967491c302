"""How alike the backbone finds held-out faces: typical and unusual ones, and a map of all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from fra.inference.drawing import Pixels
from fra.inference.encoder import FaceEncoder
from fra.report.faces import COMPARED, Picture, evenly, held_out, picture, read_images
from fra.transfer.heads import unit

SHOWN = 6
"""Maximum number of typical, and of unusual, faces."""
MAP_WIDTH, MAP_HEIGHT, THUMBNAIL, MARGIN = 480, 300, 34, 24
"""Sizes of the map in SVG units."""


@dataclass(frozen=True)
class Features:
    """Features of held-out faces.

    Attributes:
        faces: Number of faces.
        typical: The faces nearest to the mean of all, of different people, with their distance.
        unusual: The faces farthest from it.
        drawing: The map.
        variance: Share of the variance of the features that the map shows.
    """

    faces: int
    typical: list[tuple[Picture, str]]
    unusual: list[tuple[Picture, str]]
    drawing: Markup
    variance: str


def draw_features(encoder: FaceEncoder, manifest: pd.DataFrame, shards: Path) -> Features:
    """Compare the features of held-out faces.

    Args:
        encoder: The model.
        manifest: Usable rows of the labelled set.
        shards: Folder with their images.

    Raises:
        ValueError: Fewer than three images are held out.
    """
    rows = evenly(held_out(manifest), COMPARED)
    if len(rows) < 3:
        raise ValueError("Fewer than three photographs are held out.")
    photographs = read_images(rows, shards)
    embeddings_ND = encoder.embed([photographs[key] for key in rows["key"]]).cpu().numpy()
    directions_ND = unit(embeddings_ND)
    mean_D = directions_ND.mean(axis=0)
    distance_N = 1 - directions_ND @ mean_D / max(np.linalg.norm(mean_D), 1e-12)
    one_each = nearest_of_each_person(rows, distance_N)
    count = min(SHOWN, len(one_each) // 2)
    farthest = nearest_of_each_person(rows, -distance_N)

    def shown(indices: list[int]) -> list[tuple[Picture, str]]:
        keys = rows["key"].iloc[indices]
        return [
            (picture(photographs[key], f"Held-out face {key}"), f"{key}: {distance_N[index]:.3f}")
            for index, key in zip(indices, keys, strict=True)
        ]

    pca = PCA(2, svd_solver="full")
    position_N2 = pca.fit_transform(directions_ND)
    return Features(
        faces=len(rows),
        typical=shown(one_each[:count]),
        unusual=shown(farthest[:count]),
        drawing=draw_map(position_N2, list(rows["key"]), photographs),
        variance=f"{100 * pca.explained_variance_ratio_.sum():.0f}\u00a0%",
    )


def nearest_of_each_person(rows: pd.DataFrame, distance_N: NDArray[np.float64]) -> list[int]:
    """Positions of the row with the smallest distance of each person, the smallest first."""
    order = np.argsort(distance_N, kind="stable")
    people = rows["person"].fillna(rows["key"]).iloc[order]
    return [int(index) for index in order[~people.duplicated().to_numpy()]]


def draw_map(position_N2: NDArray[np.float64], keys: list[str], photographs: dict[str, Pixels]) -> Markup:
    """Draw faces at their positions as SVG: small pictures where they do not overlap, dots for the others."""
    low_2, high_2 = position_N2.min(axis=0), position_N2.max(axis=0)
    size_2 = np.array([MAP_WIDTH, MAP_HEIGHT]) - 2 * MARGIN
    placed_N2 = MARGIN + (position_N2 - low_2) / np.maximum(high_2 - low_2, 1e-9) * size_2
    pictured: list[int] = []
    for index, place_2 in enumerate(placed_N2):
        if all(np.abs(place_2 - placed_N2[other]).max() >= THUMBNAIL for other in pictured):
            pictured.append(index)
    dots = [
        Markup('<circle cx="{:.0f}" cy="{:.0f}" r="2.5"><title>{}</title></circle>').format(x, y, key)
        for index, ((x, y), key) in enumerate(zip(placed_N2, keys, strict=True))
        if index not in pictured
    ]
    images = [
        Markup(
            '<image href="{}" x="{:.0f}" y="{:.0f}" width="{}" height="{}"><title>{}</title></image>'
        ).format(
            picture(square(photographs[keys[index]]), "", 2 * THUMBNAIL).source,
            *(placed_N2[index] - THUMBNAIL / 2),
            THUMBNAIL,
            THUMBNAIL,
            keys[index],
        )
        for index in pictured
    ]
    return Markup('<svg class="map" role="img" aria-label="{}" viewBox="0 0 {} {}">{}{}</svg>').format(
        f"Map of {len(keys)} faces; similar features are close together",
        MAP_WIDTH,
        MAP_HEIGHT,
        Markup().join(dots),
        Markup().join(images),
    )


def square(image_HW3: Pixels) -> Pixels:
    """The square at the centre of an image."""
    height, width = image_HW3.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image_HW3[top : top + side, left : left + side]
