"""Our loader compared with torchvision's, on the same files, recipe and cores.

The baseline is what one writes first: `ImageFolder`, Pillow, torchvision's transforms twice per image, `DataLoader`
with a process per core; its blur is Pillow's, as in the official code (torchvision's own is slower). Ours: a beton,
crops by FFCV, compiled views. Both deliver two normalised float32 views per image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader
from torchvision import transforms as tv
from torchvision.datasets import ImageFolder

from fra.bench.inputs import images_and_source
from fra.bench.measure import (
    Measurement,
    Work,
    alternate,
    comparison,
    cpu_seconds_per_item,
    items_per_second,
    measure,
)
from fra.bench.peers.process import Peer, Round, running
from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.parallel import cores, torch_threads

CPU = torch.device("cpu")


class Blur:
    """Gaussian blur by Pillow with a random sigma between `low` and `high` pixels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        """Returns the blurred image."""
        sigma = float(torch.empty(1).uniform_(self.low, self.high))
        return image.filter(ImageFilter.GaussianBlur(sigma))


class TwoViews:
    """Both views of an image by torchvision's transforms."""

    def __init__(self, config: ViewsConfig, size: int) -> None:
        self.transforms = [self.recipe(config, size, view) for view in (0, 1)]

    @staticmethod
    def recipe(config: ViewsConfig, size: int, view: int) -> tv.Compose:
        """Returns the transforms of view 0 or 1, `size` pixels square."""
        jitter = tv.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        return tv.Compose(
            [
                tv.RandomResizedCrop(size, config.crop_scale, config.crop_ratio),
                tv.RandomHorizontalFlip(config.flip_probability),
                tv.RandomApply([jitter], config.jitter_probability),
                tv.RandomGrayscale(config.grey_probability),
                tv.RandomApply([Blur(*config.blur_sigma)], config.blur_probability[view]),
                tv.RandomSolarize(128, config.solarize_probability[view]),
                tv.ToTensor(),
                tv.Normalize(config.mean, config.std),
            ]
        )

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        """Returns both views, each (3, size, size)."""
        return [transform(image) for transform in self.transforms]


def compare_loaders(
    root: Path | None = None,
    *,
    image_size: int = 224,
    batch_size: int = 64,
    images: int = 1024,
    rounds: int = 3,
    peer: Peer | None = None,
) -> dict[str, Any]:
    """Compares both loaders in alternating rounds of one epoch each.

    Args:
        root: Folder of folders of images; None takes synthetic JPEG files of 200×200 pixels.
        image_size: Side of the views in pixels.
        batch_size: Images per batch.
        images: Number of synthetic images.
        rounds: Number of alternating rounds.
        peer: The baseline; None is the plain loader.

    Returns:
        `baseline` and `ours` in images/s, medians over the rounds, and `ratio`; the same for crops alone, which feed a
        GPU that makes the photometric changes itself (`crops`, `crops_ratio`); `decode`, images/s of bare decoding,
        the upper limit, and `of_decode`, the share of it that ours reaches; CPU seconds per image of each.
    """
    config, count = ViewsConfig(), cores()
    with (
        images_and_source(root, images, count) as (folder, source),
        torch_threads(count),
        ExitStack() as stack,
    ):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        works = {
            **our_epochs(source, config, image_size, batch_size, count),
            "decode": decoding(files, count),
        }
        for name in ("ours", "crops"):
            measure(works[name])  # FFCV compiles in the first epoch
        if peer is None:
            works["baseline"] = plain_epochs(folder, config, image_size, batch_size, count)
        contenders: dict[str, Round] = {name: partial(measure, work) for name, work in works.items()}
        if peer is not None:
            recipe = {"root": str(folder), "views": asdict(config)}
            sizes = {"image_size": image_size, "batch_size": batch_size, "workers": count}
            contenders["baseline"] = stack.enter_context(running(peer, recipe | sizes))
        taken = alternate(contenders, rounds)
    return {
        **_rates(taken),
        "peer": None if peer is None else peer.name,
        "rounds": rounds,
        "image_size": image_size,
        "batch_size": batch_size,
        "workers": count,
    }


def _rates(taken: Mapping[str, list[Measurement]]) -> dict[str, Any]:
    """Returns rates, CPU seconds and ratios of all contenders."""
    rate = {name: items_per_second(measurements) for name, measurements in taken.items()}
    cpu = {name: cpu_seconds_per_item(measurements) for name, measurements in taken.items()}
    return {
        **comparison(rate["baseline"], rate["ours"]),
        "crops": rate["crops"],
        "crops_ratio": rate["crops"] / rate["baseline"],
        "decode": rate["decode"],
        "of_decode": rate["ours"] / rate["decode"],
        "cpu_seconds_per_image": cpu,
        "cpu_ratio": cpu["baseline"] / cpu["ours"],
        "crops_cpu_ratio": cpu["baseline"] / cpu["crops"],
    }


def plain_pairs(
    root: Path,
    views: ViewsConfig,
    image_size: int,
    batch_size: int,
    workers: int,
    *,
    persistent_workers: bool = False,
) -> DataLoader[Any]:
    """Returns a DataLoader of ([view 1, view 2], class), written as a user would with torchvision and Pillow.

    Unless `persistent_workers`, its processes end with the epoch, so that their CPU seconds are known.
    """
    return DataLoader(
        ImageFolder(str(root), TwoViews(views, image_size)),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=persistent_workers,
        drop_last=True,
    )


def plain_epochs(root: Path, views: ViewsConfig, image_size: int, batch_size: int, workers: int) -> Work:
    """Returns a function that reads an epoch of `plain_pairs`, and yields the number of images of each batch."""
    pairs = plain_pairs(root, views, image_size, batch_size, workers)

    def run() -> Iterator[int]:
        for (first, _), _ in pairs:
            yield len(first)

    return run


def our_epochs(
    source: Path, views: ViewsConfig, image_size: int, batch_size: int, workers: int
) -> dict[str, Work]:
    """Returns functions that read the next epoch of our loader, and yield the number of images of each batch.

    `ours` makes both views; `crops` makes the crops only.
    """
    data = DataConfig("ffcv", image_size=image_size, workers=workers)
    pairs = build_loader(data, views, source=source, exclude=frozenset(), batch_size=batch_size, seed=0)
    make = Views(views, seed=0)
    epochs = itertools.count()

    def crops() -> Iterator[int]:
        for batch in pairs.epoch(next(epochs)):
            yield len(batch.index_B)

    def ours() -> Iterator[int]:
        epoch = next(epochs)
        for batch in pairs.epoch(epoch):
            yield len(make(batch, epoch, CPU)[0])

    return {"ours": ours, "crops": crops}


def decoding(files: list[Path], workers: int) -> Work:
    """Returns a function that decodes all files by OpenCV (libjpeg-turbo) in `workers` threads, yielding 1 for each."""

    def decode(path: Path) -> int:
        cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_COLOR)
        return 1

    def run() -> Iterator[int]:
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(workers) as executor:
            yield from executor.map(decode, files, chunksize=32)

    return run
