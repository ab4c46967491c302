"""What can go wrong while training, and how it is noticed: collapse, divergence, lack of memory, a stop
signal."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fra.method.losses import entropy, mask_assignment
from fra.method.networks import Embeddings

logger = logging.getLogger(__name__)

RESUME_ME = 75
"""Exit code of a run that was stopped and continues where it was when started again (EX_TEMPFAIL)."""


def collapse(seen: Embeddings, temperature: float) -> Tensor:
    """Signs of collapse in a batch, (3,): embedding_std, mask_entropy, masks_used.

    embedding_std: deviation of the normalised embeddings over the batch, × √D: about 1 when they spread over
    the sphere, 0 when all images look the same (SimSiam, figure 2). mask_entropy: mean over pixels of the
    entropy of their assignment to masks (scores / `temperature`), over log K: 1 when no pixel prefers a
    mask, 0 when each is certain. masks_used: exponential of the entropy of the mean assignment: K when all
    masks get the same share of pixels, 1 when one takes all. Without region branch the last two are 0 and 1.
    """
    unit_BD = F.normalize(seen.global_BD.float(), dim=1)
    spread = unit_BD.std(dim=0, correction=0).mean() * math.sqrt(unit_BD.shape[1])
    if seen.regions is None:
        return torch.stack([spread, torch.zeros_like(spread), torch.ones_like(spread)])
    assigned_NK = mask_assignment(seen.regions.scores_BKHW.float(), temperature).exp()
    certainty = entropy(assigned_NK).mean() / math.log(assigned_NK.shape[1])
    return torch.stack([spread, certainty, entropy(assigned_NK.mean(0)).exp()])


class CollapseWatch:
    """Warns once of each sign of collapse that lasts for `patience` readings."""

    limits: ClassVar = {"embedding_std": 0.05, "masks_used": 1.05}

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self.below = dict.fromkeys(self.limits, 0)

    def see(self, reading: dict[str, float], regional: bool) -> None:
        """A row of the history; its masks count where there are regions."""
        for name, limit in self.limits.items():
            if name == "masks_used" and not regional:
                continue
            self.below[name] = self.below[name] + 1 if reading[name] < limit else 0
            if self.below[name] == self.patience:
                logger.warning(
                    "the networks seem to collapse: %s has been below %g for %d readings (%.3g at step %d); "
                    "a lower train.lr, a longer warm-up or a larger batch may help",
                    name,
                    limit,
                    self.patience,
                    reading[name],
                    reading["step"],
                )


class Divergence:
    """Judges each step's loss: bad when not finite, or `factor` times its running mean."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.mean: float | None = None

    def is_bad(self, loss: float) -> bool:
        if not math.isfinite(loss) or (self.mean is not None and loss > self.factor * self.mean):
            return True
        self.mean = loss if self.mean is None else 0.98 * self.mean + 0.02 * loss
        return False


class StopSignal:
    """Notes SIGTERM and SIGINT instead of dying of them; a second one ends the process at once.

    Only the main thread may change signal handlers; elsewhere nothing is changed.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {name: signal.signal(name, self._note) for name in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        logger.warning("%s: saving after this step; once more to end at once", signal.Signals(number).name)

    def _restore(self) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler if handler is not None else signal.SIG_DFL)
        self._before = {}


def free_memory(device: torch.device) -> None:
    """Hand memory that nothing uses any more back to the device, or on the CPU (with glibc) to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's or the machine's memory is spent."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # what torch's CPU allocator says, and what oneDNN does
    said = ("can't allocate memory", "could not create a primitive", "could not create a memory object")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def largest_that_fits(trial: Callable[[int], None], failed: int) -> int | None:
    """The largest of `failed` / 2, / 4, / 8 … images that `trial` gets through without running out of
    memory."""
    count = failed // 2
    while count >= 2:  # batch norm needs two
        try:
            trial(count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return count
        count //= 2
    return None
