"""TensorBoard, for those who want it: the rows of the history as they come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Writes each row of the history into `folder` as TensorBoard reads it.

    A run that continues, or goes back to a checkpoint, replaces the rows that come once more. Raises RuntimeError
    where the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # its package is not among those that FRA needs
        except ImportError as error:
            raise RuntimeError(
                f"train.tensorboard is true, but {error.name or 'tensorboard'} is not installed: "
                "`pip install tensorboard`, or set it to false"
            ) from error
        self._open: Any = SummaryWriter
        self._writer: Any = None
        self._last = 0
        self.folder = folder

    def __call__(self, reading: Mapping[str, float]) -> None:
        step = int(reading["step"])
        if self._writer is None or step <= self._last:
            self.close()
            self._writer = self._open(str(self.folder), purge_step=step)
        for name, value in reading.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        self._writer.flush()
        self._last = step

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
