"""An optional TensorBoard logger for the rows of the history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoardLogger:
    """Writes each row of the history as scalars into TensorBoard event files.

    A run that is resumed or rolled back replaces the rows that it computes again.

    Args:
        folder: Folder of the event files.

    Raises:
        RuntimeError: The package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # an optional dependency
        except ImportError as error:
            raise RuntimeError(
                f"train.tensorboard is true, but {error.name or 'tensorboard'} is not installed: "
                "`pip install tensorboard`, or set it to false"
            ) from error
        self._open: Any = SummaryWriter
        self._writer: Any = None
        self._last_step = 0
        self.folder = folder

    def __call__(self, row: Mapping[str, float]) -> None:
        """Writes one row; its key `step` is the x axis."""
        step = int(row["step"])
        if self._writer is None or step <= self._last_step:
            self.close()
            self._writer = self._open(str(self.folder), purge_step=step)
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        self._writer.flush()
        self._last_step = step

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
