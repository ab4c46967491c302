"""A small real run of pre-training, in this process or (as a script) in processes that tests may kill.

python toy.py FOLDER '{"epochs": 2, ...}' — arguments of TrainConfig, and seconds_per_batch. torchrun starts
several ranks. Touches FOLDER/started before it looks for a checkpoint, FOLDER/running once it has logged.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fra import dist
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Crops, Views
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.train.config import TrainConfig
from fra.train.pretrain import pretrain

torch.set_num_threads(1)  # the quickest for networks this small
SIZE = 32
IMAGES = 32
MODEL = ModelConfig("small", num_masks=3, projection_dim=16, hidden_dim=32)
DEFAULTS = {
    "epochs": 3,
    "batch_size": 8,
    "warmup_epochs": 1,
    "lr": 0.5,
    "log_every": 2,
    "checkpoint_every": 2,
    "device": "cpu",
    "precision": "float32",
}


class ToyLoader:
    """Random images; each epoch cuts them differently and gives each rank its share of every batch."""

    def __init__(self, batch_size: int, seconds_per_batch: float = 0.0, images: int = IMAGES) -> None:
        self.batch_size = batch_size
        self.seconds_per_batch = seconds_per_batch
        self.steps_per_epoch = images // batch_size
        self.images = torch.randint(
            256,
            (images, SIZE + 8, SIZE + 8, 3),
            dtype=torch.uint8,
            generator=torch.Generator().manual_seed(0),
        )

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(epoch))
        share = self.batch_size // dist.world_size()
        for step in range(start_step, self.steps_per_epoch):
            time.sleep(self.seconds_per_batch)
            start = step * self.batch_size + dist.rank() * share
            index = order[start : start + share]
            low = epoch % 8
            crop = self.images[index, low : low + SIZE, 3 : 3 + SIZE]
            yield Crops(crop, self.images[index, 8:, 8 - low : 8 - low + SIZE], index)


def run(folder: Path, loader: ToyLoader | None = None, **options: Any) -> dict[str, Any]:
    """Train into folder/out with checkpoints in folder/checkpoints."""
    objective = options.pop("objective", ObjectiveConfig())
    model = options.pop("model", MODEL)
    observe = options.pop("observe", None)
    probe = options.pop("probe", None)
    measures = options.pop("measures", None)
    views = options.pop("views", None) or Views(ViewsConfig(), seed=0)
    config = TrainConfig(**{**DEFAULTS, **options})
    return pretrain(
        model,
        objective,
        config,
        loader or ToyLoader(config.batch_size),
        views,
        folder / "out",
        folder / "checkpoints",
        {"data": "toy"},
        observe,
        probe,
        measures,
    )


if __name__ == "__main__":
    with dist.process_group("cpu"):
        folder = Path(sys.argv[1])
        chosen = {**DEFAULTS, **json.loads(sys.argv[2])}
        loader = ToyLoader(chosen["batch_size"], chosen.pop("seconds_per_batch", 0.0))
        (folder / "started").touch()
        run(folder, loader, observe=lambda reading: (folder / "running").touch(), **chosen)
