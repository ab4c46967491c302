"""Out of memory: recognise it, and find the batch size that fits."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable

import torch


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
