"""The progress bar of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from tqdm import tqdm

from fra.train.monitoring.history import SPEED


class ProgressBar:
    """One line with steps, time left and the latest metrics.

    Refreshed at most once a second on a terminal and every 30 s elsewhere.

    Args:
        steps: Number of steps of the whole run.
        done: Number of steps already done.
        enabled: False shows nothing (all ranks but the first).
        device: On a GPU its peak memory is shown too.
    """

    def __init__(self, steps: int, done: int, enabled: bool, device: torch.device) -> None:
        interactive = sys.stderr.isatty()
        self.device = device
        self.bar = tqdm(
            total=steps,
            initial=done,
            desc="pretrain",
            unit="step",
            disable=not enabled,
            mininterval=1 if interactive else 30,
            maxinterval=10 if interactive else 60,
            dynamic_ncols=True,
        )

    def advance(self) -> None:
        """Counts one more step."""
        self.bar.update()

    def rewind(self, step: int) -> None:
        """Sets the number of steps done back to `step`, after a rollback."""
        self.bar.n = step
        self.bar.refresh()

    def show(self, row: Mapping[str, float]) -> None:
        """Shows the metrics of a new row of the history."""
        shown = {
            "images/s": f"{row[SPEED]:.0f}",
            **{name: f"{row[name]:.3f}" for name in ("total", "global", "region", "relation")},
            "std": f"{row['embedding_std']:.2f}",
            "masks": f"{row['masks_used']:.1f}",
            "lr": f"{row['lr']:.3g}",
        }
        if "knn" in row:
            shown["knn"] = f"{row['knn']:.3f}"
        if "rankme" in row:
            shown["rank"] = f"{row['rankme']:.1f}"
            shown["align"], shown["uniform"], shown["alpha"] = (
                f"{row[name]:.2f}" for name in ("alignment", "uniformity", "alpha_req")
            )
        if self.device.type == "cuda":
            shown["GPU"] = f"{torch.cuda.max_memory_allocated(self.device) / 2**30:.1f}GiB"
        self.bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        """Ends the line."""
        self.bar.close()
