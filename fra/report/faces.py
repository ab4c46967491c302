"""Photographs of held-out people on the page: what the masks see in them, and where landmarks go wrong."""

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

from fra.data.images import decode, members, resize
from fra.data.views.config import ViewsConfig
from fra.data.views.crops import crop_box
from fra.data.views.rng import epoch_key
from fra.data.views.views import Crops, Views
from fra.inference import drawing as regions
from fra.inference.drawing import Pixels
from fra.inference.encoder import FaceEncoder
from fra.transfer.tasks import landmark_errors

SHOWN = 8
"""Faces that are shown one by one."""
AVERAGED = 64
"""Faces that the map of each mask is averaged over."""
WIDTH = 192
"""Width of a picture in pixels: sharp at twice the size it has on a phone."""
RARE = 0.005
"""Share of all pixels below which a mask is called unused."""
SEED, EPOCH = 0, 0


@dataclass(frozen=True)
class Picture:
    """An image inside the page: a data URI, its size in pixels, what it shows."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Face:
    """One held-out face: whole and its regions; the two views and theirs (no views: four entries fewer)."""

    key: str
    whole: list[Picture]
    views: list[Picture]


@dataclass(frozen=True)
class Mask:
    """One entry of the legend: where the mask lies on average, and its share of all pixels."""

    number: int
    colour: str
    share: str
    picture: Picture


@dataclass(frozen=True)
class Regions:
    """What the masks see: `masks` by share, the largest first; `unused` are masks with a share under `RARE`."""

    faces: list[Face]
    masks: list[Mask]
    unused: list[int]
    averaged: int


@dataclass(frozen=True)
class Landmarks:
    """One face with true and predicted landmarks drawn over it."""

    title: str
    drawing: Markup


def held_out(manifest: pd.DataFrame) -> pd.DataFrame:
    """Returns the test rows (validation rows where there is no test split) of usable rows, by key."""
    for split in ("test", "val"):
        rows = manifest[manifest["split"] == split]
        if len(rows):
            return rows.sort_values("key")
    return manifest.iloc[:0]


def one_a_person(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` rows, spread evenly over people, each person's first; an unknown person counts as one more."""
    people = rows["person"].fillna(rows["key"])
    firsts = rows[~people.duplicated()]
    return firsts.iloc[np.unique(np.linspace(0, len(firsts) - 1, count).round().astype(int))]


def read(rows: pd.DataFrame, shards: Path) -> dict[str, Pixels]:
    """The images of the manifest's rows as they are stored, (H, W, 3) each, by key.

    Raises:
        KeyError: an image is not in the shard that the manifest names.
    """
    found = {
        key: decode(content)
        for shard, part in rows.groupby("shard", sort=True)
        for key, content in members(shards / str(shard), set(part["key"]))
    }
    if missing := set(rows["key"]) - set(found):
        raise KeyError(f"{shards}: the image {min(missing)} is not in the shard that the manifest names")
    return found


def see_regions(
    encoder: FaceEncoder, manifest: pd.DataFrame, shards: Path, views: Mapping[str, Any] | None
) -> Regions:
    """Heatmaps of held-out faces and of two views of them.

    `views` are the parameters of the views that the model was trained with; without them no views are shown.

    Raises:
        ValueError: there is no held-out image, or `views` are not understood.
        RuntimeError: the model has no region branch.
    """
    rows = held_out(manifest)
    if rows.empty:
        raise ValueError("the manifest has no held-out image in a shard")
    shown, averaged = one_a_person(rows, SHOWN), one_a_person(rows, AVERAGED)
    photographs = read(pd.concat([shown, averaged]).drop_duplicates("key"), shards)
    colours_K3 = regions.palette(int(encoder.metadata["num_masks"]))

    pairs = [] if views is None else _views([photographs[key] for key in shown["key"]], views, encoder)
    faces = []
    for place, key in enumerate(shown["key"]):
        whole = _with_regions(
            encoder, photographs[key], colours_K3, f"Held-out face {key}", _fit(photographs[key])
        )
        seen = [
            picture
            for number, view in enumerate(pairs, start=1)
            for picture in _with_regions(
                encoder, view[place], colours_K3, f"View {number} of {key}", (WIDTH, WIDTH)
            )
        ]
        faces.append(Face(key, whole, seen))

    heatmaps_NKHW = encoder.heatmaps([photographs[key] for key in averaged["key"]])
    labels = np.stack([regions.assign(heatmaps_KHW, WIDTH, WIDTH) for heatmaps_KHW in heatmaps_NKHW])
    mean_face = np.mean([resize(photographs[key], WIDTH) for key in averaged["key"]], axis=0).astype(np.uint8)
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
                f"Where mask {number} lies, averaged over {len(averaged)} faces",
            ),
        )
        for number in np.argsort(-share_K, kind="stable")
        if share_K[number] >= RARE
    ]
    return Regions(faces, masks, np.flatnonzero(share_K < RARE).tolist(), len(averaged))


def draw_landmarks(
    predictions: pd.DataFrame, manifest: pd.DataFrame, shards: Path, worst: int = 6, typical: int = 2
) -> list[Landmarks]:
    """The images with the largest errors of one model's alignment `predictions` (one fit a seed), then some typical.

    An image that several seeds got wrong is shown once, with its largest error; typical is about the median of these.
    """
    errors = pd.concat(
        first.assign(error=error_N)[["key", "seed", "error"]]
        for first, error_N in (landmark_errors(fit) for _, fit in predictions.groupby("seed"))
    )
    largest = errors.sort_values(["error", "key"], ascending=[False, True]).drop_duplicates("key")
    middle = max(worst, len(largest) // 2)
    chosen = pd.concat([largest[:worst], largest[middle : middle + typical]])
    names = [*(f"Worst {rank}" for rank in range(1, worst + 1)), *["Typical"] * typical]
    photographs = read(manifest[manifest["key"].isin(chosen["key"])], shards)
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
    """Both views of each photograph, as training makes them, but as pixels: two lists of (size, size, 3)."""
    try:
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}
        views = Views(ViewsConfig(**values), SEED)
    except TypeError as error:
        raise ValueError(f"the parameters of the views are not understood: {error}") from None
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
    """The image, and the image in the colours of its regions."""
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
    """Width and height at which an image is shown: `WIDTH` wide, its aspect kept."""
    height, width = image.shape[:2]
    return WIDTH, round(WIDTH * height / width)


def _picture(image: Pixels, size: tuple[int, int], alt: str) -> Picture:
    return Picture(_data_uri(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), *size, alt)


def _data_uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _drawing(
    image: Pixels, truth_L2: NDArray[np.float64], pred_L2: NDArray[np.float64], title: str
) -> Markup:
    """The photograph with true landmarks, predicted ones, and a line between each pair, as SVG.

    Landmarks count from the centre of the top left pixel, SVG from its corner.
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
