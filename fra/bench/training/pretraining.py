"""Pre-training end to end, from JPEG files: our loader, views and step compared with the plain ones.

The baseline is the plain loader of `fra.bench.loader` feeding the plain step of `fra.bench.training.plain_step`. Both
train on the same files with the same recipe, cores and device, an epoch each in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fra.bench.inputs import fastest_loader, images_and_source
from fra.bench.loader import plain_pairs
from fra.bench.measure import Work, alternate, check_rounds, compared, device_name, measure
from fra.bench.training.contenders import OurStep, PlainStep, networks, our_step, plain
from fra.bench.training.setup import Setup
from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.loader.protocol import Loader
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.method.config import ModelConfig
from fra.parallel import cores, torch_threads
from fra.train.prefetch import StepTimer, prefetch
from fra.train.pretrain import step_threads
from fra.train.step import AsyncCopy

H100 = "NVIDIA H100 80GB HBM3"
MLPERF = 7006
"""Images/s of supervised ResNet-50 training at 224 pixels on one of eight H100 in MLPerf Training 3.0."""
PASSES = 8 / 3
"""Cost of an image here over one there: four forward and two backward passes (each costs two) over 1 + 2."""


def compare_training(
    root: Path | None,
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    images: int = 64,
    rounds: int = 2,
    device: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Trains in both ways in turn, `rounds` epochs each after one epoch of warm-up.

    Args:
        root: Folder of folders of images; None takes synthetic JPEG files of 200×200 pixels.
        model: Sizes of the networks.
        image_size: Side of the views in pixels.
        batch_size: Images per step.
        images: Number of synthetic images.
        rounds: Number of alternating rounds.
        device: As train.device.
        compiled: Ours with torch.compile.

    Returns:
        `baseline` and `ours` in images/s, medians over the rounds, `ratio` and `cpu_ratio`; `waiting_share`, the
        largest share of an epoch in which our steps waited for data, the first batch left out; `loader`, "ffcv" or,
        where it is not installed, "webdataset"; on an H100 with ResNet-50 at 224 pixels `of_mlperf`, the share of the
        rate that MLPerf implies.

    Raises:
        ValueError: Fewer images than a batch has, or no rounds.
    """
    check_rounds(rounds, batch_size)
    setup, workers = Setup.of(model, image_size, batch_size, device), cores()
    reader = fastest_loader()
    data, views = DataConfig(reader, image_size=image_size, workers=workers), ViewsConfig()
    with images_and_source(root, images, workers, reader) as (folder, source), torch_threads(workers):
        loader = build_loader(data, views, source=source, exclude=frozenset(), batch_size=batch_size, seed=0)
        pairs = plain_pairs(folder, views, image_size, batch_size, workers, persistent_workers=True)
        step, threads = our_step(setup, compiled=compiled), step_threads(networks(setup), setup.device)
        ours = OurEpochs(loader, Views(views, seed=0), step, setup.device, threads)
        contenders: dict[str, Work] = {
            "baseline": plain_epochs(pairs, plain(setup), setup.device),
            "ours": ours,
        }
        works = {name: partial(measure, work, setup.device) for name, work in contenders.items()}
        rounds_taken = alternate(works, 1 + rounds)
        description = setup.description()
    taken = compared({name: measurements[1:] for name, measurements in rounds_taken.items()})
    return {
        **taken,
        "waiting_share": max(ours.waiting_shares[1:]),
        **of_mlperf(float(taken["ours"]), device_name(setup.device), model.backbone, image_size),
        "loader": reader,
        **description,
        "ours_threads": threads,
        "images": rounds_taken["ours"][-1].items,
        "rounds": rounds,
        "compiled": compiled,
    }


def plain_epochs(pairs: Iterable[Any], step: PlainStep, device: torch.device) -> Work:
    """Returns an epoch of plain steps on the batches of a DataLoader."""

    def run() -> Iterator[int]:
        for (view1, view2), _ in pairs:
            step(view1.to(device), view2.to(device))
            yield len(view1)

    return run


class OurEpochs:
    """Epochs as pre-training runs them.

    Attributes:
        waiting_shares: For each epoch the share of its time, from the first batch on, that steps waited for the next.
    """

    def __init__(
        self,
        loader: Loader,
        views: Views,
        step: OurStep,
        device: torch.device,
        threads: int,
    ) -> None:
        self.loader, self.views, self.step, self.device, self.threads = loader, views, step, device, threads
        self.waiting_shares: list[float] = []

    def __call__(self) -> Iterator[int]:
        """Runs the next epoch; yields the number of images of each step."""
        timer = StepTimer(0)
        pending: list[AsyncCopy] = []
        feeding = prefetch(self.loader, self.views, len(self.waiting_shares), 0, self.device)
        with torch_threads(self.threads), closing(feeding) as feed:
            for number, batch in enumerate(timer.time_waiting(feed)):
                if number == 0:
                    timer.lap(0)
                pending.append(AsyncCopy(self.step(batch.view1_B3HW, batch.view2_B3HW).losses))
                if number:
                    pending.pop(0).read()  # one step late, as in training on a GPU
                yield len(batch.index_B)
        pending.pop().read()
        lap = timer.lap(0)
        self.waiting_shares.append(lap.seconds_waiting / lap.seconds)


def of_mlperf(rate: float, device: str, backbone: str, image_size: int) -> dict[str, float]:
    """Returns the share of the rate that MLPerf's implies, or nothing where the two cannot be compared."""
    comparable = (device, backbone, image_size) == (H100, "resnet50", 224)
    return {"of_mlperf": rate / (MLPERF / PASSES)} if comparable else {}
