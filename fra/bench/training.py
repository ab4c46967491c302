"""Pre-training end to end, from JPEG files: our loader, views and step beside the plain ones, in one run.

The baseline is the plain loader of `fra.bench.loader` feeding the plain step of `fra.bench.step`: what one writes
first. Both see the same files and recipe, on the same cores and device, an epoch each in turn.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fra import dist
from fra.bench.loader import Batches, measured, plain_pairs, prepare, threads
from fra.bench.step import both_steps, check, device_name
from fra.bench.synthetic_images import made_up_faces
from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig, Loader
from fra.data.shards.config import ShardConfig
from fra.data.views.views import Views, ViewsConfig
from fra.method.networks import ModelConfig
from fra.train.prefetch import StepTimer, prefetch
from fra.train.step import AsyncCopy, StepOutput, choose_precision

H100 = "NVIDIA H100 80GB HBM3"
MLPERF = 7006
"""Images/s of supervised training of ResNet-50 at 224 pixels by one of eight of them, in MLPerf Training 3.0."""
PASSES = 8 / 3
"""Of the backbone, for one there: an image four times forward and twice backward (which costs two) for 1 + 2."""


def training(
    root: Path | None,
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    images: int = 64,
    rounds: int = 2,
    device: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Trains both ways in turn, `rounds` epochs each after one that warms up.

    `root` is a folder of folders of images (None: made-up JPEG files of 200×200). Returns `baseline` and `ours`
    (images/s, medians), `ratio`, and `waited`: the largest share of an epoch that our steps waited for a batch but the
    first; on an H100 with ResNet-50 at 224 pixels `of_mlperf` too, the share of what MLPerf implies.

    Raises ValueError where there are fewer images than a batch has, or no rounds.
    """
    check(rounds, batch_size)
    where, cores = dist.choose_device(device), len(os.sched_getaffinity(0))
    dtype = choose_precision("auto", where)
    plain_step, our_step = both_steps(model, where, dtype, compiled)
    with tempfile.TemporaryDirectory() as place, threads(cores):
        if root is None:
            root = Path(place) / "faces"
            made_up_faces(root, images)
        source = prepare(root, Path(place), ShardConfig(workers=cores))
        data, views = DataConfig(image_size=image_size, workers=cores), ViewsConfig()
        pairs = build_loader(data, views, source=source, exclude=frozenset(), batch_size=batch_size, seed=0)
        plain = plain_epochs(
            plain_pairs(root, views, image_size, batch_size, cores, kept=True), plain_step, where
        )
        ours = OurEpochs(pairs, Views(views, seed=0), our_step, where)
        contenders: dict[str, Batches] = {"baseline": plain, "ours": ours}
        laps = [{name: measured(run) for name, run in contenders.items()} for _ in range(1 + rounds)][1:]
    rate = {name: statistics.median(lap[name].images / lap[name].wall for lap in laps) for name in contenders}
    return {
        **rate,
        "ratio": rate["ours"] / rate["baseline"],
        "waited": max(ours.waited[1:]),
        **of_mlperf(rate["ours"], device_name(where), model.backbone, image_size),
        **asdict(model),
        "image_size": image_size,
        "batch_size": batch_size,
        "images": laps[0]["ours"].images,
        "rounds": rounds,
        "device": device_name(where),
        "cores": cores,
        "precision": str(dtype).removeprefix("torch."),
        "compiled": compiled,
    }


def plain_epochs(
    pairs: Iterable[Any], step: Callable[[Tensor, Tensor], dict[str, float]], device: torch.device
) -> Batches:
    """Epochs as one writes them first; each yields how many images a step had."""

    def run() -> Iterator[int]:
        for (view1, view2), _ in pairs:
            step(view1.to(device), view2.to(device))
            yield len(view1)

    return run


class OurEpochs:
    """Epochs as pre-training runs them; `waited` is the share of each, once it has its first batch, that steps waited
    for the next."""

    def __init__(
        self,
        pairs: Loader,
        views: Views,
        step: Callable[[Tensor, Tensor], StepOutput],
        device: torch.device,
    ) -> None:
        self.pairs, self.views, self.step, self.device = pairs, views, step, device
        self.waited: list[float] = []

    def __call__(self) -> Iterator[int]:
        clock = StepTimer(0)
        unread: list[AsyncCopy] = []
        with closing(prefetch(self.pairs, self.views, len(self.waited), 0, self.device)) as feed:
            for number, batch in enumerate(clock.time_waiting(feed)):
                if number == 0:
                    clock.lap(0)
                unread.append(AsyncCopy(self.step(batch.view1_B3HW, batch.view2_B3HW).losses))
                if number:
                    unread.pop(0).read()  # one step late, as in training on a GPU
                yield len(batch.index_B)
        unread.pop().read()
        seconds, waited, _ = clock.lap(0)
        self.waited.append(waited / seconds)


def of_mlperf(rate: float, device: str, backbone: str, image_size: int) -> dict[str, float]:
    """The share of the rate that MLPerf's implies, where the two can be compared."""
    comparable = (device, backbone, image_size) == (H100, "resnet50", 224)
    return {"of_mlperf": rate / (MLPERF / PASSES)} if comparable else {}
