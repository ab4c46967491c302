"""Reading of the losses of past steps, and detection of divergence."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import NamedTuple

from fra import dist
from fra.train.prefetch import Batch
from fra.train.state import TrainState
from fra.train.step import LOSSES, AsyncCopy, StepOutput
from fra.weights.files import save_weights


class DivergedError(RuntimeError):
    """Training diverged: a loss or a weight is not finite, or the loss rose far above its running mean.

    Attributes:
        step: The step whose batch caused it.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


def has_diverged(loss: float, running_mean: float | None, max_ratio: float) -> bool:
    """Returns True for a loss that is not finite or exceeds `max_ratio` times the running mean, if there is one."""
    return not math.isfinite(loss) or (running_mean is not None and loss > max_ratio * running_mean)


def update_running_mean(running_mean: float | None, loss: float) -> float:
    """Returns the exponential moving average (momentum 0.98) after one more loss; the first loss starts it."""
    return loss if running_mean is None else 0.98 * running_mean + 0.02 * loss


class PendingLoss(NamedTuple):
    """A finished step whose losses are still being copied to the CPU."""

    step: int
    losses: AsyncCopy
    batch: Batch


class LossReader:
    """Adds the losses of finished steps to the state, one step late on a GPU so that the GPU never idles.

    Args:
        collectives: All ranks raise the same error.
        max_ratio: Largest ratio of a loss to the running mean that is no divergence.
        lag: How many steps may stay unread after a step.
        folder: Where the views of a diverged step are saved.
    """

    def __init__(self, collectives: dist.CpuCollectives, max_ratio: float, lag: int, folder: Path) -> None:
        self.collectives = collectives
        self.max_ratio = max_ratio
        self.lag = lag
        self.folder = folder
        self._pending: deque[PendingLoss] = deque()

    def add(self, step: int, output: StepOutput, batch: Batch) -> None:
        """Starts to copy the losses of a step to the CPU."""
        self._pending.append(PendingLoss(step, AsyncCopy(output.losses), batch))

    def clear(self) -> None:
        """Forgets all unread losses, after a rollback."""
        self._pending.clear()

    def read(self, state: TrainState, wait: bool) -> None:
        """Adds the losses of all finished steps to `state`, but for the last `lag` unless `wait`.

        Raises:
            DivergedError: A loss diverged on at least one rank; raised on all ranks for the same step.
        """
        keep = 0 if wait else self.lag
        while len(self._pending) > keep:
            pending = self._pending.popleft()
            losses = pending.losses.read()
            if has_diverged(losses[0], state.mean_loss, self.max_ratio):
                self._raise_diverged(pending, losses)
            state.mean_loss = update_running_mean(state.mean_loss, losses[0])
            state.add_losses(losses)
        step = self.collectives.earliest(None)
        if step is not None:
            raise DivergedError(step, f"the loss of step {step} diverged on another rank")

    def _raise_diverged(self, pending: PendingLoss, losses: list[float]) -> None:
        """Saves the views of this rank's diverged step and raises DivergedError with the earliest of all ranks."""
        step = self.collectives.earliest(pending.step)
        assert step is not None
        path = self.folder / f"diverged-step-{step:09d}-rank-{dist.rank()}.safetensors"
        save_weights(path, pending.batch._asdict(), {"step": pending.step, "losses": repr(losses)})
        values = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSSES, losses, strict=True))
        raise DivergedError(step, f"the loss of step {step} diverged ({values}); its views are in {path}")
