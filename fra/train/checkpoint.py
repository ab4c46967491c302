"""The checkpoints that a run resumes from. `load_official` reads the weights of the official FRA code."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fra.files import atomic
from fra.weights.official import load_official

__all__ = ["Checkpoints", "load_official"]

logger = logging.getLogger(__name__)


class Checkpoints:
    """The last few checkpoints of one run, in a folder of their own: `step-000000123.pt`.

    Each is written whole or not at all (temporary file, flushed to disk, renamed). With several machines the
    folder must be on storage they share: rank 0 writes, all ranks read.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    @contextmanager
    def held(self, patience: float = 60.0) -> Iterator[None]:
        """Keep other runs out of the folder. Waits up to `patience` seconds for one that is still saving and
        going.

        Raises RuntimeError where another run holds the folder for longer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            deadline = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise RuntimeError(
                            f"{self.folder} is in use by another run: wait for it, or end it"
                        ) from None
                    time.sleep(0.2)
            yield

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state after `step` steps and drop all but the last `keep`."""
        path = self.folder / f"step-{step:09d}.pt"
        with atomic(path) as partial, partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The newest readable checkpoint, or None where there is none. A damaged one is set aside with a new
        name."""
        for path in reversed(self.paths()):
            try:
                state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            except Exception as error:  # whatever the bytes make of PyTorch's reader
                damaged = path.with_suffix(".damaged")
                path.replace(damaged)
                logger.warning(
                    "checkpoint %s cannot be read (%s): set aside, trying an older one", path, error
                )
                continue
            return state
        return None

    def remove(self) -> None:
        """Delete what a run leaves in its folder, and the folder if nothing else is in it."""
        for pattern in ("step-*", ".step-*", "diverged-step-*", "history.csv", "lock"):
            for path in self.folder.glob(pattern):
                path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
