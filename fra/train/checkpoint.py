"""Checkpoints that a run resumes from. `load_official` reads the weights of the official FRA code."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from fra import dist
from fra.files import atomic
from fra.weights.official import load_official

__all__ = ["Checkpoints", "check_identity", "load_official", "load_on_all_ranks"]

logger = logging.getLogger(__name__)


class Checkpoints:
    """The last few checkpoints of one run, in a folder of their own: `step-000000123.pt`.

    Each file is written completely or not at all (temporary file, flushed to disk, renamed). With several machines
    the folder must be on shared storage: rank 0 writes, all ranks read.

    Args:
        folder: The folder of this run's checkpoints.
        keep: How many checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    @contextmanager
    def exclusive(self, timeout: float = 60.0) -> Iterator[None]:
        """Locks the folder against other runs; the operating system releases the lock if the process is killed.

        Args:
            timeout: Seconds to wait for another run that is just saving before it stops.

        Raises:
            RuntimeError: Another run still holds the lock after `timeout` seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=timeout):
                yield
        except Timeout:
            raise RuntimeError(
                f"{self.folder} is in use by another run: wait until it ends, or stop it"
            ) from None

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Writes the state after `step` steps, deletes all but the last `keep` checkpoints, returns the file."""
        path = self.folder / f"step-{step:09d}.pt"
        with atomic(path) as partial, partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """Returns the complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def load(self) -> dict[str, Any] | None:
        """Returns the newest readable checkpoint, on the CPU, or None without one.

        An unreadable checkpoint is renamed to `*.damaged` with a warning. Only tensors and plain values are read:
        a file cannot execute code.
        """
        for path in reversed(self.paths()):
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch.load raises errors of many types for damaged files
                damaged = path.with_suffix(".damaged")
                path.replace(damaged)
                logger.warning(
                    "checkpoint %s cannot be read (%s): renamed to %s, trying an older one",
                    path,
                    error,
                    damaged.name,
                )
                continue
            return state
        return None

    def remove(self) -> None:
        """Deletes a run's checkpoints and history in the folder, and the folder if it is empty then."""
        for pattern in ("step-*", ".step-*", "diverged-step-*", "history.csv", "lock"):
            for path in self.folder.glob(pattern):
                path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def load_on_all_ranks(checkpoints: Checkpoints, collectives: dist.CpuCollectives) -> dict[str, Any] | None:
    """Returns the newest readable checkpoint, the same on every rank, or None without one.

    Raises:
        RuntimeError: The ranks read different checkpoints, because their storage is not shared.
    """
    state = checkpoints.load() if dist.rank() == 0 else None
    collectives.barrier()  # rank 0 has renamed damaged checkpoints by now
    if dist.rank() > 0:
        state = checkpoints.load()
    step = -1 if state is None else int(state["step"])
    if collectives.any(collectives.mean([step]) != [step]):
        raise RuntimeError(
            f"ranks found different checkpoints in {checkpoints.folder}: "
            "it must be on storage that all machines share"
        )
    return state


def check_identity(saved: Mapping[str, Any], own: Mapping[str, Any], folder: Path) -> None:
    """Raises ValueError naming each parameter in which a checkpoint differs from this run."""
    names = [name for name in sorted({*saved, *own}) if saved.get(name) != own.get(name)]
    if names:
        differences = ", ".join(
            f"{name}: {saved.get(name)} in the checkpoint, {own.get(name)} in this run" for name in names
        )
        raise ValueError(
            f"{folder} holds the checkpoints of another run: give each run its own folder, or delete this one "
            f"({differences})"
        )
