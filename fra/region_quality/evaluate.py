"""Region quality: agreement of heatmaps with facial parts, and consistency of masks over views and people.

Facial parts are polygons of 68 or 98 landmarks, which training never uses. Each pixel is assigned to its most probable
mask. The baseline `place` depends on position only: the same division of the image into as many compact cells as masks
(k-means of pixel positions) for every face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fra.data import images
from fra.transfer.metrics import Array
from fra.transfer.splits import people, read_manifest

# SciPy and scikit-learn are imported by the functions that use them: the import takes 1.5 s.
if TYPE_CHECKING:
    import pandas as pd

PARTS: dict[int, dict[str, list[Sequence[int]]]] = {
    68: {
        "skin": [[*range(17), 26, 25, 24, 19, 18, 17]],
        "brows": [range(17, 22), range(22, 27)],
        "eyes": [range(36, 42), range(42, 48)],
        "nose": [[27, 31, 32, 33, 34, 35]],
        "mouth": [range(48, 60)],
    },
    98: {
        "skin": [[*range(33), 46, 45, 44, 35, 34, 33]],
        "brows": [range(33, 42), range(42, 51)],
        "eyes": [range(60, 68), range(68, 76)],
        "nose": [[51, 55, 56, 57, 58, 59]],
        "mouth": [range(76, 88)],
    },
}
"""Outlines of parts by number of landmarks (68: iBUG 300-W, 98: WFLW); later parts are drawn over earlier ones."""

NAMES = ["background", *PARTS[68]]
"""Names of parts; the index is the number of the part in `draw_parts`."""

Pixels = NDArray[np.uint8]
Metrics = dict[str, float | dict[str, float]]


class Heatmaps(Protocol):
    """A model with a region branch, such as `fra.load` returns."""

    @property
    def image_size(self) -> int:
        """Side of the input images in pixels."""

    def heatmaps(self, images: list[Pixels]) -> Tensor:
        """Return heatmaps (N, K, h, w), which sum to 1 over K."""


class NotMeasurable(ValueError):
    """Region quality is not defined for a model or a labelled set; the message has the reason."""


class TestImages(NamedTuple):
    """Test images, a view (the crop `boxes`) of each, and parts and landmarks (in pixels) of the whole images."""

    whole: list[Pixels]
    views: list[Pixels]
    boxes: list[tuple[slice, slice]]
    part_NHW: Array
    point_NL2: Array
    person_N: NDArray[np.str_]


class Masks(NamedTuple):
    """Number of the mask of each pixel of the whole images and of the views; `num_masks` counts them."""

    whole_NHW: Array
    view_NHW: Array
    num_masks: int


def read_test_images(
    manifest: Path, quarantined: Set[str], shards: Path, size: int, seed: int = 0
) -> TestImages:
    """Read the test images with 68 or 98 landmarks.

    Args:
        manifest: Manifest of the labelled set.
        quarantined: Keys of images that are left out.
        shards: Folder with the shards of the labelled set.
        size: Side in pixels to which images are resized.
        seed: Seed of the views.

    Raises:
        NotMeasurable: No test image has 68 or 98 landmarks.
        ValueError: Some test images have 68 landmarks and others 98, or the manifest is damaged.
    """
    frame = read_manifest(manifest, quarantined)
    points = frame["landmarks"].map(lambda row: 0 if row is None else len(row) // 2)
    usable = points.isin(PARTS) & (frame["split"] == "test")
    if not usable.any():
        raise NotMeasurable(
            f"{manifest}: no test image has 68 or 98 landmarks, from which the facial parts are drawn"
        )
    if points[usable].nunique() > 1:
        raise ValueError(f"{manifest}: some test images have 68 landmarks, others 98: leave out one kind")
    return _prepare(frame[usable].reset_index(drop=True), shards, size, seed)


def _prepare(frame: pd.DataFrame, shards: Path, size: int, seed: int) -> TestImages:
    whole = list(images.read(frame, shards, size))
    point_NL2 = np.stack(frame["landmarks"].to_list()).reshape(len(frame), -1, 2)
    point_NL2 = point_NL2 * (size / frame[["width", "height"]].to_numpy(dtype=float))[:, None]
    boxes = draw_boxes(len(frame), size, seed)
    return TestImages(
        whole=whole,
        views=[images.resize(image[box], size) for image, box in zip(whole, boxes, strict=True)],
        boxes=boxes,
        part_NHW=np.stack([draw_parts(point_L2, size) for point_L2 in point_NL2]),
        point_NL2=point_NL2,
        person_N=people(frame).to_numpy(dtype=str),
    )


def evaluate(models: Mapping[str, Sequence[Heatmaps]], test: TestImages, seed: int = 0) -> dict[str, Metrics]:
    """Compute the region quality of models.

    Args:
        models: Models by row, such as "pretrained" and "random"; metrics are means over the models of a row. All
            models have the `image_size` to which the images are resized.
        test: The test images.
        seed: Seed of the baseline `place`.

    Returns:
        Metrics by row, including the row "place": `nmi`, the normalised mutual information of masks and parts over all
        pixels; `iou` of each part and `matched_iou`, their mean; `view_kappa` and `people_kappa` (see the functions of
        these names). The best value of each is 1; chance level of `nmi` and both kappas is 0.

    Raises:
        NotMeasurable: The test images show fewer than two people.
    """
    masks = {name: [_masks(model, test) for model in row] for name, row in models.items()}
    count, size = next(iter(masks.values()))[0].num_masks, test.part_NHW.shape[1]
    cell_NHW = np.broadcast_to(position_cells(count, size, seed), test.part_NHW.shape)
    masks["place"] = [Masks(cell_NHW, cell_NHW, count)]
    return {name: _mean([_metrics(test, found) for found in row]) for name, row in masks.items()}


def _masks(model: Heatmaps, test: TestImages) -> Masks:
    whole_NHW, count = assign(model, test.whole)
    return Masks(whole_NHW, assign(model, test.views)[0], count)


def _metrics(test: TestImages, masks: Masks) -> Metrics:
    from sklearn.metrics import normalized_mutual_info_score

    iou = matched_iou(masks.whole_NHW, test.part_NHW)
    return {
        "nmi": float(normalized_mutual_info_score(test.part_NHW.ravel(), masks.whole_NHW.ravel())),
        "matched_iou": float(np.mean(list(iou.values()))),
        "view_kappa": view_kappa(masks.whole_NHW, masks.view_NHW, test.boxes),
        "people_kappa": people_kappa(masks.whole_NHW, test.point_NL2, test.person_N, masks.num_masks),
        "iou": iou,
    }


def _mean(rows: list[Any]) -> Any:
    """Return the mean of numbers, or of (nested) dictionaries of numbers by key."""
    if isinstance(rows[0], dict):
        return {name: _mean([row[name] for row in rows]) for name in rows[0]}
    return float(np.mean(rows))


def assign(model: Heatmaps, pixels: list[Pixels]) -> tuple[Array, int]:
    """Assign each pixel of the images to the mask with the highest heatmap.

    Heatmaps are enlarged to the size of the images by bilinear interpolation.

    Returns:
        Number of the mask of each pixel, (N, H, W), and the number of masks.
    """
    parts, count = [], 0
    for start in range(0, len(pixels), 64):
        heat_BKHW = model.heatmaps(pixels[start : start + 64])
        large_BKHW = functional.interpolate(heat_BKHW, size=(model.image_size,) * 2, mode="bilinear")
        parts.append(large_BKHW.argmax(dim=1).cpu())
        count = heat_BKHW.shape[1]
    return torch.cat(parts).numpy(), count


def position_cells(count: int, size: int, seed: int) -> Array:
    """Divide a square image into `count` compact cells by k-means of pixel positions: (size, size)."""
    from sklearn.cluster import KMeans

    position_P2 = np.stack(np.meshgrid(*[np.arange(size)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    cell_P: Array = KMeans(count, n_init=3, random_state=seed).fit_predict(position_P2)
    return cell_P.reshape(size, size)


def draw_parts(point_L2: Array, size: int) -> Array:
    """Return the part of each pixel as its index in `NAMES`, (size, size); `point_L2` has 68 or 98 points in pixels."""
    part_HW = np.zeros((size, size), dtype=np.uint8)
    shift = 4  # OpenCV takes coordinates in sixteenths of a pixel
    for number, outlines in enumerate(PARTS[len(point_L2)].values(), start=1):
        for outline in outlines:
            corners = np.round(point_L2[list(outline)] * 2**shift).astype(np.int32)
            cv2.fillPoly(part_HW, [corners], number, shift=shift)
    return part_HW


def matched_iou(mask_NHW: Array, part_NHW: Array) -> dict[str, float]:
    """Return the intersection over union of each part with its matched mask, over the pixels of all images.

    Masks and parts are matched one to one so that the sum is largest (Hungarian method). A part without a mask has 0.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix

    count = max(int(mask_NHW.max()) + 1, len(NAMES))
    both = confusion_matrix(part_NHW.ravel(), mask_NHW.ravel(), labels=np.arange(count))[: len(NAMES)]
    of_mask = np.bincount(mask_NHW.ravel(), minlength=count)
    union = both.sum(axis=1, keepdims=True) + of_mask - both
    iou = both / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(-iou)
    return {NAMES[part]: float(iou[part, mask]) for part, mask in zip(rows, columns, strict=True)}


def draw_boxes(count: int, size: int, seed: int) -> list[tuple[slice, slice]]:
    """Draw a random square crop of each image, its side half to all of the image's: slices (rows, columns)."""
    generator = np.random.default_rng([seed, 5])
    sides = generator.integers(size // 2, size + 1, size=count)
    corners = generator.integers(0, size - sides[:, None] + 1, size=(count, 2))
    return [
        (slice(int(y), int(y + side)), slice(int(x), int(x + side)))
        for side, (y, x) in zip(sides, corners, strict=True)
    ]


def view_kappa(whole_NHW: Array, view_NHW: Array, boxes: list[tuple[slice, slice]]) -> float:
    """Return Cohen's kappa between the masks of a crop of the whole image and those of the crop as an input.

    It is the share of pixels with the same mask, corrected for chance: 1 if masks do not depend on the crop.
    """
    size = whole_NHW.shape[1]
    cropped = [
        cv2.resize(masks[box].astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
        for masks, box in zip(whole_NHW, boxes, strict=True)
    ]
    return _kappa(np.stack(cropped).ravel(), view_NHW.ravel())


def _kappa(one_P: Array, other_P: Array) -> float:
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(one_P, other_P)) == 1:
        return 0.0  # a single mask everywhere has no information
    return float(cohen_kappa_score(one_P, other_P))


def people_kappa(mask_NHW: Array, point_NL2: Array, person_N: NDArray[np.str_], count: int) -> float:
    """Return Fleiss' kappa of the mask at the same landmark, over pairs of different people.

    It is the share of pairs with the same mask, corrected for chance: 1 if a mask is at the same landmarks of every
    face. Landmarks outside the image are moved to its edge.

    Raises:
        NotMeasurable: There are fewer than two people.
    """
    size = mask_NHW.shape[1]
    x_NL, y_NL = np.clip(np.round(point_NL2).astype(int), 0, size - 1).transpose(2, 0, 1)
    mask_NL = mask_NHW[np.arange(len(mask_NHW))[:, None], y_NL, x_NL]
    share_NLK = np.eye(count)[mask_NL]
    names = np.unique(person_N)
    if len(names) < 2:
        raise NotMeasurable("consistency over people requires at least two test subjects with landmarks")
    share_PLK = np.stack([share_NLK[person_N == name].mean(axis=0) for name in names])
    pairs = len(names) * (len(names) - 1)
    agree = ((share_PLK.sum(axis=0) ** 2 - (share_PLK**2).sum(axis=0)).sum(axis=-1) / pairs).mean()
    chance = float(np.sum(share_PLK.mean(axis=(0, 1)) ** 2))
    return 0.0 if chance == 1 else float((agree - chance) / (1 - chance))
