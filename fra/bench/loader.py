"""Our loader beside torchvision's, on the same files, recipe and cores, in alternating rounds of one run.

The baseline is what one writes first: `ImageFolder`, Pillow, torchvision's transforms twice an image, `DataLoader`
with a process a core; its blur is Pillow's, as in the official code (torchvision's own is slower). Ours: a beton,
crops by FFCV, compiled views. Both deliver two normalised float32 views a image.
"""

from __future__ import annotations

import itertools
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader
from torchvision import transforms as tv
from torchvision.datasets import ImageFolder

from fra.bench.synthetic_images import made_up_faces
from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.shards import beton, write
from fra.data.shards.config import ShardConfig
from fra.data.views.views import Views, ViewsConfig

CPU = torch.device("cpu")
Batches = Callable[[], Iterator[int]]
"""An epoch: how many images each of its batches has."""


class Round(NamedTuple):
    """What a round took: images, wall and CPU seconds (of this process and its children)."""

    images: int
    wall: float
    cpu: float


class Blur:
    """Gaussian blur by Pillow, its sigma drawn anew for each image."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        sigma = float(torch.empty(1).uniform_(self.low, self.high))
        return image.filter(ImageFilter.GaussianBlur(sigma))


class TwoViews:
    """Both views of an image by torchvision's transforms."""

    def __init__(self, config: ViewsConfig, size: int) -> None:
        self.transforms = [self.recipe(config, size, view) for view in (0, 1)]

    @staticmethod
    def recipe(config: ViewsConfig, size: int, view: int) -> tv.Compose:
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
        return [transform(image) for transform in self.transforms]


def prepare(root: Path, out: Path, config: ShardConfig) -> Path:
    """The beton of a folder of images."""
    records = ingest(DatasetConfig("bench", "folder", str(root)), out / "raw")
    manifest = write.write(records, root, out / "shards", out / "manifest.parquet", config, out / "state")
    beton.write(manifest, out / "shards", out / "beton", config)
    return out / "beton" / "train.beton"


def seconds() -> float:
    """CPU seconds of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measured(batches: Batches) -> Round:
    """Runs an epoch that yields how many images each batch has."""
    wall, cpu = time.perf_counter(), seconds()
    images = sum(batches())
    return Round(images, time.perf_counter() - wall, seconds() - cpu)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def decoding(files: list[Path], workers: int) -> Batches:
    """Nothing but decoding the files, by OpenCV (libjpeg-turbo), on all cores."""

    def decode(path: Path) -> int:
        cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_COLOR)
        return 1

    def run() -> Iterator[int]:
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(decode, files, chunksize=32)

    return run


def summary(rounds: list[Round]) -> dict[str, float]:
    return {
        "images_per_second": statistics.median(one.images / one.wall for one in rounds),
        "cpu_seconds_per_image": statistics.median(one.cpu / one.images for one in rounds),
    }


def loader(
    root: Path | None = None,
    *,
    image_size: int = 224,
    batch_size: int = 64,
    images: int = 1024,
    rounds: int = 3,
    workers: int = 0,
    views: ViewsConfig | None = None,
) -> dict[str, Any]:
    """Measures both loaders in alternating rounds of an epoch each.

    `root` is a folder of folders of images (None: made-up JPEG files of 200×200). `workers` 0 = one a core.
    Returns `baseline` and `ours` (images/s, medians), `ratio`, the same for crops alone (`crops`, `crops_ratio`: what
    feeds a GPU that makes the colours), `decode` (images/s of bare decoding: the limit), `of_decode` (how much of it
    is reached) and CPU seconds an image of each.
    """
    config = views or ViewsConfig()
    count = workers or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place, threads(count):
        if root is None:
            root = Path(place) / "faces"
            made_up_faces(root, images)
        source = prepare(root, Path(place), ShardConfig(workers=count))
        files = sorted(path for path in root.rglob("*") if path.is_file())
        contenders = {
            "baseline": plain_loader(root, config, image_size, batch_size, count),
            **our_loader(source, config, image_size, batch_size, count),
            "decode": decoding(files, count),
        }
        for name in ("ours", "crops"):
            measured(contenders[name])  # FFCV compiles at the first epoch
        taken: dict[str, list[Round]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                taken[name].append(measured(run))
    return {
        **compared({name: summary(one) for name, one in taken.items()}),
        "rounds": rounds,
        "image_size": image_size,
        "batch_size": batch_size,
        "workers": count,
    }


def plain_pairs(
    root: Path, views: ViewsConfig, image_size: int, batch_size: int, workers: int, *, kept: bool = False
) -> DataLoader[Any]:
    """What a user would write with torchvision and Pillow, with the same recipe: ([view 1, view 2], class). Its
    processes are started anew for each epoch, or `kept`: CPU seconds are known only of those that ended."""
    images = ImageFolder(str(root), TwoViews(views, image_size))
    return DataLoader(
        images,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=kept,
        drop_last=True,
    )


def plain_loader(root: Path, views: ViewsConfig, image_size: int, batch_size: int, workers: int) -> Batches:
    """Epochs of `plain_pairs`."""
    pairs = plain_pairs(root, views, image_size, batch_size, workers)

    def run() -> Iterator[int]:
        for (first, _), _ in pairs:
            yield len(first)

    return run


def our_loader(
    source: Path, views: ViewsConfig, image_size: int, batch_size: int, workers: int
) -> dict[str, Batches]:
    """`ours`: pairs of views; `crops`: what a GPU that makes the colours is fed with. Each run is another epoch."""
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


def compared(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    rate = {name: one["images_per_second"] for name, one in found.items()}
    cpu = {name: one["cpu_seconds_per_image"] for name, one in found.items()}
    return {
        **rate,
        "ratio": rate["ours"] / rate["baseline"],
        "crops_ratio": rate["crops"] / rate["baseline"],
        "of_decode": rate["ours"] / rate["decode"],
        "cpu_seconds_per_image": cpu,
        "cpu_ratio": cpu["baseline"] / cpu["ours"],
        "crops_cpu_ratio": cpu["baseline"] / cpu["crops"],
    }
