"""How well heatmaps find the parts of a face that nobody showed them, and whether a mask keeps its meaning.

Parts are drawn from 68 landmarks. Each pixel belongs to its mask of the highest heatmap. Beside the model
stands what masks of place alone would get (`place`): the image cut into as many compact cells, the same for
every face.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import cohen_kappa_score, confusion_matrix, normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional

from fra.data import images
from fra.data.files import write_json
from fra.transfer.evaluate import read_manifest
from fra.transfer.metrics import Array
from fra.transfer.splits import people

PARTS: dict[str, list[Sequence[int]]] = {
    "skin": [[*range(17), 26, 25, 24, 19, 18, 17]],
    "brows": [range(17, 22), range(22, 27)],
    "eyes": [range(36, 42), range(42, 48)],
    "nose": [[27, 31, 32, 33, 34, 35]],
    "mouth": [range(48, 60)],
}
"""Outlines by landmarks (iBUG 300-W order), each drawn over those before; what is outside all is background."""

Pixels = NDArray[np.uint8]
Figures = dict[str, float | dict[str, float]]


class Heatmaps(Protocol):
    """What `fra.load` gives for a model with region branch."""

    image_size: int

    def heatmaps(self, images: list[Pixels]) -> Tensor:
        """(N, K, h, w), sums to 1 over K."""


def evaluate(model: Heatmaps, manifest: Path, shards: Path, out: Path, seed: int = 0) -> dict[str, Figures]:
    """Region quality on the test people that have 68 landmarks; writes and returns `out` (a JSON file).

    By model ("pretrained", "place"): `nmi`, the normalised mutual information of masks and parts over all
    pixels; `matched_iou` (mean over parts) and `iou` (of each); `view_kappa` and `people_kappa`: see the
    functions of these names. All are 1 at best; `nmi` and both kappas are 0 by chance.

    Raises:
        ValueError: no test image has 68 landmarks.
    """
    frame = read_manifest(manifest)
    known = frame["landmarks"].map(lambda row: row is not None and len(row) == 2 * 68)
    frame = frame[known & (frame["split"] == "test")].reset_index(drop=True)
    if not len(frame):
        raise ValueError(f"{manifest}: no test image has 68 landmarks; parts of faces are drawn from these")
    size = model.image_size
    pixels_NHW3 = images.read(frame, shards, size)
    point_NL2 = np.stack(frame["landmarks"].to_list()).reshape(len(frame), -1, 2)
    point_NL2 = point_NL2 * (size / frame[["width", "height"]].to_numpy(dtype=float))[:, None]
    part_NHW = np.stack([draw_parts(point_L2, size) for point_L2 in point_NL2])
    boxes = draw_boxes(len(frame), size, seed)
    views = [images.resize(image[box], size) for image, box in zip(pixels_NHW3, boxes, strict=True)]
    person_N = people(frame).to_numpy(dtype=str)
    masks, count = assign(model, list(pixels_NHW3))
    place = np.broadcast_to(cells(count, size, seed), masks.shape)
    figures: dict[str, Figures] = {}
    for name, whole_NHW, view_NHW in (
        ("pretrained", masks, assign(model, views)[0]),
        ("place", place, place),
    ):
        iou = matched_iou(whole_NHW, part_NHW)
        figures[name] = {
            "nmi": float(normalized_mutual_info_score(part_NHW.ravel(), whole_NHW.ravel())),
            "matched_iou": float(np.mean(list(iou.values()))),
            "view_kappa": view_kappa(whole_NHW, view_NHW, boxes),
            "people_kappa": people_kappa(whole_NHW, point_NL2, person_N, count),
            "iou": iou,
        }
    write_json(figures, out)
    return figures


def assign(model: Heatmaps, pixels: list[Pixels]) -> tuple[Array, int]:
    """The mask of the highest heatmap at each pixel of the images, (N, H, W), and the number of masks.

    Heatmaps are enlarged to the image's size first, between the centres of their cells.
    """
    parts, count = [], 0
    for start in range(0, len(pixels), 64):
        heat_BKHW = model.heatmaps(pixels[start : start + 64])
        large_BKHW = functional.interpolate(heat_BKHW, size=(model.image_size,) * 2, mode="bilinear")
        parts.append(large_BKHW.argmax(dim=1).cpu())
        count = heat_BKHW.shape[1]
    return torch.cat(parts).numpy(), count


def cells(count: int, size: int, seed: int) -> Array:
    """A square image cut into `count` compact cells, by k-means of the pixels' places: (size, size)."""
    place_P2 = np.stack(np.meshgrid(*[np.arange(size)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    cell_P: Array = KMeans(count, n_init=3, random_state=seed).fit_predict(place_P2)
    return cell_P.reshape(size, size)


def draw_parts(point_L2: Array, size: int) -> Array:
    """The part of each pixel, 0 background and 1 … as in `PARTS`: (size, size). Points in pixels, 68 of them."""
    part_HW = np.zeros((size, size), dtype=np.uint8)
    shift = 4  # OpenCV takes coordinates in sixteenths of a pixel
    for number, outlines in enumerate(PARTS.values(), start=1):
        for outline in outlines:
            corners = np.round(point_L2[list(outline)] * 2**shift).astype(np.int32)
            cv2.fillPoly(part_HW, [corners], number, shift=shift)
    return part_HW


def matched_iou(mask_NHW: Array, part_NHW: Array) -> dict[str, float]:
    """Intersection over union of each part with the mask matched to it, over all images together.

    Masks and parts are matched one to one so that the sum is largest (Hungarian method); a part left
    without a mask has 0.
    """
    names = ["background", *PARTS]
    count = max(int(mask_NHW.max()) + 1, len(names))
    both = confusion_matrix(part_NHW.ravel(), mask_NHW.ravel(), labels=np.arange(count))[: len(names)]
    of_mask = np.bincount(mask_NHW.ravel(), minlength=count)
    union = both.sum(axis=1, keepdims=True) + of_mask - both
    iou = both / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(-iou)
    return {names[part]: float(iou[part, mask]) for part, mask in zip(rows, columns, strict=True)}


def draw_boxes(count: int, size: int, seed: int) -> list[tuple[slice, slice]]:
    """A square of half to all of the side, somewhere in each image: (rows, columns)."""
    generator = np.random.default_rng([seed, 5])
    sides = generator.integers(size // 2, size + 1, size=count)
    corners = generator.integers(0, size - sides[:, None] + 1, size=(count, 2))
    return [
        (slice(int(y), int(y + side)), slice(int(x), int(x + side)))
        for side, (y, x) in zip(sides, corners, strict=True)
    ]


def view_kappa(whole_NHW: Array, view_NHW: Array, boxes: list[tuple[slice, slice]]) -> float:
    """Cohen's kappa between the masks of a part of an image, and of that part seen alone and enlarged.

    The share of pixels with the same mask, corrected for chance: 1 where a mask does not depend on the
    framing.
    """
    size = whole_NHW.shape[1]
    seen = [
        cv2.resize(masks[box].astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
        for masks, box in zip(whole_NHW, boxes, strict=True)
    ]
    return _kappa(np.stack(seen).ravel(), view_NHW.ravel())


def _kappa(one_P: Array, other_P: Array) -> float:
    if len(np.union1d(one_P, other_P)) == 1:
        return 0.0  # a single mask everywhere tells nothing
    return float(cohen_kappa_score(one_P, other_P))


def people_kappa(mask_NHW: Array, point_NL2: Array, person_N: NDArray[np.str_], count: int) -> float:
    """Fleiss' kappa of the mask at the same landmark of two people, over pairs of different people.

    How often they agree, corrected for chance: 1 where a mask means the same place of every face. Landmarks
    outside the image count at its edge.
    """
    size = mask_NHW.shape[1]
    x_NL, y_NL = np.clip(np.round(point_NL2).astype(int), 0, size - 1).transpose(2, 0, 1)
    mask_NL = mask_NHW[np.arange(len(mask_NHW))[:, None], y_NL, x_NL]
    share_NLK = np.eye(count)[mask_NL]
    names = np.unique(person_N)
    if len(names) < 2:
        raise ValueError("consistency across people needs at least two people with landmarks in test")
    share_PLK = np.stack([share_NLK[person_N == name].mean(axis=0) for name in names])
    pairs = len(names) * (len(names) - 1)
    agree = ((share_PLK.sum(axis=0) ** 2 - (share_PLK**2).sum(axis=0)).sum(axis=-1) / pairs).mean()
    chance = float(np.sum(share_PLK.mean(axis=(0, 1)) ** 2))
    return 0.0 if chance == 1 else float((agree - chance) / (1 - chance))
