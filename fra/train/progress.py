"""What a run shows while it goes on, and the history it leaves."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from tqdm import tqdm


class Progress:
    """A line with steps, time left and the latest reading; at most once a second, less often where nobody
    looks."""

    def __init__(self, steps: int, done: int, shown: bool, device: torch.device) -> None:
        seen = sys.stderr.isatty()
        self.device = device
        self.bar = tqdm(
            total=steps,
            initial=done,
            desc="pretrain",
            unit="step",
            disable=not shown,
            mininterval=1 if seen else 30,
            maxinterval=10 if seen else 60,
            dynamic_ncols=True,
        )

    def advance(self) -> None:
        self.bar.update()

    def rewind(self, step: int) -> None:
        """Back to `step`, after a rollback."""
        self.bar.n = step
        self.bar.refresh()

    def show(self, reading: Mapping[str, float]) -> None:
        shown = {
            "images/s": f"{reading['images_per_second']:.0f}",
            **{name: f"{reading[name]:.3f}" for name in ("total", "global", "region", "relation")},
            "std": f"{reading['embedding_std']:.2f}",
            "masks": f"{reading['masks_used']:.1f}",
            "lr": f"{reading['lr']:.3g}",
        }
        if "knn" in reading:
            shown["knn"] = f"{reading['knn']:.3f}"
        if self.device.type == "cuda":
            shown["GPU"] = f"{torch.cuda.max_memory_allocated(self.device) / 2**30:.1f}GiB"
        self.bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        self.bar.close()
