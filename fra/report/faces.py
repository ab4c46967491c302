"""Photographs of held-out people on the page: mask regions, and true and predicted landmarks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from fra.data.images import decode, members, resize
from fra.data.views.config import ViewsConfig
from fra.data.views.crops import crop_box
from fra.data.views.rng import epoch_key
from fra.data.views.views import Crops, Views
from fra.inference import drawing as regions
from fra.inference.drawing import Pixels
from fra.inference.encoder import FaceEncoder
from fra.report.elements import Table
from fra.transfer.tasks.prediction_metrics import landmark_errors

SHOWN = 8
"""Maximum number of faces that are shown individually."""
AVERAGED = 64
"""Maximum number of faces over which the map of each mask is averaged."""
WIDTH = 192
"""Width of a picture in pixels: twice its CSS width on a phone, for high-density screens."""
UNUSED_SHARE = 0.005
"""A mask with a smaller share of all pixels counts as unused."""
COMPARED = 256
"""Maximum number of faces whose features, and whose masks' average faces and shares, are compared."""
GROUP_SIZE, GROUP_VALUES, GROUPS, TABLE_MASKS = 5, 8, 20, 12
"""Of the table of shares: least faces of a row, largest numbers of values of a label, of rows and of masks."""
SEED, EPOCH = 0, 0


@dataclass(frozen=True)
class Picture:
    """An image embedded in the page: data URI, width and height in pixels, alternative text."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Face:
    """One held-out face: `whole` is (image, regions); `views` is (view 1, regions, view 2, regions) or empty."""

    key: str
    whole: list[Picture]
    views: list[Picture]


@dataclass(frozen=True)
class Mask:
    """One entry of the legend: the mask's average position on a face, its share of all pixels, and its average face."""

    number: int
    colour: str
    share: str
    picture: Picture
    average: Picture


@dataclass(frozen=True)
class Regions:
    """Mask regions of held-out faces.

    `masks` are the used ones, largest share first; `unused` are numbers of masks with a share under `UNUSED_SHARE`;
    `averaged` is the number of faces of the legend, `compared` that of the average faces and of `groups`: the share of
    each mask by value of the labels, None where the set has no labels.
    """

    faces: list[Face]
    masks: list[Mask]
    unused: list[int]
    averaged: int
    compared: int
    groups: Table | None


@dataclass(frozen=True)
class Landmarks:
    """One face with its true and predicted landmarks drawn over it."""

    title: str
    drawing: Markup


def held_out(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the test rows of a manifest, or the validation rows if it has no test split, sorted by key."""
    for split in ("test", "val"):
        rows = manifest[manifest["split"] == split]
        if len(rows):
            return rows.sort_values("key")
    return manifest.iloc[:0]


def evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return at most `count` rows, evenly spaced."""
    return (
        rows.iloc[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))] if len(rows) else rows
    )


def one_per_person(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first row of at most `count` people, evenly spaced; a row without person counts as a person."""
    people = rows["person"].fillna(rows["key"])
    return evenly(rows[~people.duplicated()], count)


def read_images(rows: pd.DataFrame, shards: Path) -> dict[str, Pixels]:
    """Read the images of the manifest's rows in their stored size, (H, W, 3) each, by key.

    Raises:
        KeyError: An image is not in the shard that the manifest names.
    """
    found = {
        key: decode(content)
        for shard, part in rows.groupby("shard", sort=True)
        for key, content in members(shards / str(shard), set(part["key"]))
    }
    if missing := set(rows["key"]) - set(found):
        raise KeyError(f"{shards}: the image {min(missing)} is not in the shard that the manifest names")
    return found


def draw_regions(
    encoder: FaceEncoder, manifest: pd.DataFrame, shards: Path, views: Mapping[str, Any] | None
) -> Regions:
    """Draw the mask regions of held-out faces and of two augmented views of each.

    Args:
        encoder: Model with a region branch.
        manifest: Usable rows of the labelled set.
        shards: Folder with their images.
        views: Parameters of the views in training (`ViewsConfig`); None draws no views.

    Raises:
        ValueError: No image is held out, or `views` are not valid parameters.
        RuntimeError: The model has no region branch.
    """
    rows = held_out(manifest)
    if rows.empty:
        raise ValueError("the manifest has no held-out image")
    shown, averaged, compared = (
        one_per_person(rows, SHOWN),
        one_per_person(rows, AVERAGED),
        evenly(rows, COMPARED),
    )
    photographs = read_images(pd.concat([shown, averaged, compared]).drop_duplicates("key"), shards)
    colours_K3 = regions.palette(int(encoder.metadata["num_masks"]))

    pairs = [] if views is None else _views([photographs[key] for key in shown["key"]], views, encoder)
    faces = []
    for row, key in enumerate(shown["key"]):
        whole = _with_regions(
            encoder, photographs[key], colours_K3, f"Held-out face {key}", _fit(photographs[key])
        )
        views_of_face = [
            picture
            for number, view in enumerate(pairs, start=1)
            for picture in _with_regions(
                encoder, view[row], colours_K3, f"View {number} of {key}", (WIDTH, WIDTH)
            )
        ]
        faces.append(Face(key, whole, views_of_face))

    heatmaps_NKHW = encoder.heatmaps([photographs[key] for key in averaged["key"]])
    labels = np.stack([regions.assign(heatmaps_KHW, WIDTH, WIDTH) for heatmaps_KHW in heatmaps_NKHW])
    mean_face = np.mean([resize(photographs[key], WIDTH) for key in averaged["key"]], axis=0).astype(np.uint8)
    compared_heatmaps = encoder.heatmaps([photographs[key] for key in compared["key"]])
    compared_labels = np.stack([regions.assign(one, WIDTH // 2, WIDTH // 2) for one in compared_heatmaps])
    small_NHW3 = np.stack([resize(photographs[key], WIDTH // 2) for key in compared["key"]])
    size = _fit(photographs[averaged["key"].iloc[0]])
    share_K = regions.shares(labels, len(colours_K3))
    masks = [
        Mask(
            number=int(number),
            colour="#" + bytes(colours_K3[number]).hex(),
            share=f"{100 * share_K[number]:.0f}\u00a0%",
            picture=_picture(
                regions.paint_mean(mean_face, (labels == number).mean(axis=0), colours_K3[number]),
                size,
                f"Position of mask {number}, averaged over {len(averaged)} faces",
            ),
            average=_picture(
                regions.average_face(small_NHW3, compared_labels == number),
                size,
                f"What mask {number} shows, averaged over {len(compared)} faces",
            ),
        )
        for number in np.argsort(-share_K, kind="stable")
        if share_K[number] >= UNUSED_SHARE
    ]
    unused = np.flatnonzero(share_K < UNUSED_SHARE).tolist()
    groups = mask_shares(compared, compared_labels, [mask.number for mask in masks[:TABLE_MASKS]])
    return Regions(faces, masks, unused, len(averaged), len(compared), groups)


def mask_shares(rows: pd.DataFrame, labels_NHW: NDArray[np.intp], masks: list[int]) -> Table | None:
    """Return a table of each mask's share of all pixels by value of the labels, None where no label has two values.

    Values with fewer than `GROUP_SIZE` faces are left out.

    Args:
        rows: Rows of the manifest.
        labels_NHW: The most probable mask of each pixel of their images.
        masks: Numbers of the masks that are listed.
    """
    share_NK = np.stack([(labels_NHW == mask).mean(axis=(1, 2)) for mask in masks], axis=1)
    table = []
    for column in (str(name) for name in rows if str(name).startswith(("label.", "group."))):
        counts = rows[column].value_counts()
        values = sorted(counts.index[counts >= GROUP_SIZE])
        if not 1 < len(values) <= GROUP_VALUES:
            continue
        for value in values:
            among_N = (rows[column] == value).fillna(False).to_numpy(bool)
            shares = [f"{100 * share:.1f}" for share in share_NK[among_N].mean(axis=0)]
            name = column.partition(".")[2].replace("_", " ")
            table.append([f"{name} = {value:g}", f"{among_N.sum():,}", *shares])
    if not table:
        return None
    return Table(
        f"Share of each mask by label, in % of all pixels, on {len(rows)} faces",
        ["Faces with", "Number", *(f"Mask {mask}" for mask in masks)],
        table[:GROUPS],
    )


def draw_landmarks(
    predictions: pd.DataFrame, manifest: pd.DataFrame, shards: Path, worst: int = 6, typical: int = 2
) -> list[Landmarks]:
    """Draw landmarks of the test images with the largest errors, then of images with about the median error.

    Each image counts once, with the largest of its errors over the seeds.

    Args:
        predictions: Alignment predictions of one model, of one or more seeds.
        manifest: Usable rows of the labelled set.
        shards: Folder with their images.
        worst: Number of images with the largest errors.
        typical: Number of images with about the median error.
    """
    errors = pd.concat(
        first.assign(error=error_N)[["key", "seed", "error"]]
        for first, error_N in (landmark_errors(fit) for _, fit in predictions.groupby("seed"))
    )
    largest = errors.sort_values(["error", "key"], ascending=[False, True]).drop_duplicates("key")
    middle = max(worst, len(largest) // 2)
    chosen = pd.concat([largest[:worst], largest[middle : middle + typical]])
    names = [*(f"Worst {rank}" for rank in range(1, worst + 1)), *["Typical"] * typical]
    photographs = read_images(manifest[manifest["key"].isin(chosen["key"])], shards)
    drawings = []
    for name, key, seed, error in zip(names, chosen["key"], chosen["seed"], chosen["error"], strict=False):
        fit = predictions[(predictions["key"] == key) & (predictions["seed"] == seed)]
        truth_L2, pred_L2 = (fit[column].to_numpy(float).reshape(-1, 2) for column in ("truth", "prediction"))
        title = f"{name}: {key}, error {100 * error:.1f}\u00a0%"
        drawings.append(Landmarks(title, _drawing(photographs[key], truth_L2, pred_L2, title)))
    return drawings


def _views(
    photographs: Sequence[Pixels], config: Mapping[str, Any], encoder: FaceEncoder
) -> list[list[Pixels]]:
    """Return both augmented views of each photograph, not normalised: two lists of (size, size, 3)."""
    try:
        views = Views(ViewsConfig(**config), SEED)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"the recorded parameters of the views are not valid: {reasons}") from None
    key, size = epoch_key(SEED, EPOCH), encoder.image_size
    crops = []
    for view in range(2):
        cut = []
        for index, image in enumerate(photographs):
            height, width = image.shape[:2]
            top, left, height, width = crop_box(
                key, index, view, height, width, views.config.crop_scale, views.config.crop_ratio
            )
            cut.append(resize(image[top : top + height, left : left + width], size))
        crops.append(torch.from_numpy(np.stack(cut)))
    pair = views(Crops(crops[0], crops[1], torch.arange(len(photographs))), EPOCH, torch.device("cpu"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (views.config.mean, views.config.std))
    shown = [((view * std + mean) * 255).round().clamp(0, 255).byte() for view in pair]
    return [list(view_BHWC.permute(0, 2, 3, 1).numpy()) for view_BHWC in shown]


def _with_regions(
    encoder: FaceEncoder, image: Pixels, colours_K3: Pixels, name: str, size: tuple[int, int]
) -> list[Picture]:
    """Return the image, and the image painted with the colours of its masks."""
    enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    labels = regions.assign(encoder.heatmaps([image])[0], size[1], size[0])
    share_K = regions.shares(labels, len(colours_K3))
    largest = ", ".join(
        f"{k} ({share_K[k]:.0%})" for k in np.argsort(-share_K, kind="stable")[:3] if share_K[k] > 0
    )
    return [
        _picture(enlarged, size, name),
        _picture(
            regions.paint(enlarged, labels, colours_K3), size, f"{name}, coloured by mask; largest: {largest}"
        ),
    ]


def _fit(image: Pixels) -> tuple[int, int]:
    """Return width and height in pixels of a picture of the image: `WIDTH` and the same aspect ratio."""
    height, width = image.shape[:2]
    return WIDTH, round(WIDTH * height / width)


def picture(image: Pixels, alt: str, width: int = WIDTH) -> Picture:
    """Return an image for the page, `width` pixels wide and with its own aspect ratio."""
    height = round(width * image.shape[0] / image.shape[1])
    return _picture(image, (width, height), alt)


def _picture(image: Pixels, size: tuple[int, int], alt: str) -> Picture:
    return Picture(_data_uri(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), *size, alt)


def _data_uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _drawing(
    image: Pixels, truth_L2: NDArray[np.float64], pred_L2: NDArray[np.float64], title: str
) -> Markup:
    """Draw true and predicted landmarks on the photograph, with a line between each pair, as SVG.

    The origin of landmarks is the centre of the top left pixel; that of SVG is its corner.
    """
    height, width = image.shape[:2]
    enlarged = Image.fromarray(image).resize(_fit(image), Image.Resampling.BICUBIC)
    truth_L2, pred_L2 = truth_L2 + 0.5, pred_L2 + 0.5

    def dots(point_L2: NDArray[np.float64]) -> str:
        return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in point_L2)

    lines = "".join(
        f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" for (a, b), (c, d) in zip(truth_L2, pred_L2, strict=True)
    )
    return Markup(
        '<svg class="landmarks" role="img" aria-label="{title}" viewBox="0 0 {width} {height}">'
        '<image href="{source}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        '<path class="offset" d="{lines}"/><path class="truth" d="{truth}"/><path class="prediction" d="{prediction}"/>'
        "</svg>"
    ).format(
        title=title,
        width=width,
        height=height,
        source=_data_uri(enlarged),
        lines=lines,
        truth=dots(truth_L2),
        prediction=dots(pred_L2),
    )
