"""Out of memory: how it is recognised, and which batch size fits."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator

import torch

from fra import dist
from fra.train.prefetch import Batch

MESSAGES = ("can't allocate memory", "could not create a primitive", "could not create a memory object")
"""What PyTorch's CPU allocator (first) and oneDNN say when memory runs out."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


def free_memory(device: torch.device) -> None:
    """Returns unused memory to the GPU, or on the CPU (with glibc) to the operating system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def keep_freed_memory() -> None:
    """Has glibc keep up to 512 MiB of freed memory for the next step, instead of returning it to the system.

    A step frees and allocates the same sizes again and again; getting every page back from the system took 15 % of
    the time of a small step. `free_memory` still returns all of it.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc accepts
        libc.mallopt(M_TRIM_THRESHOLD, 512 * 2**20)


def _glibc() -> ctypes.CDLL | None:
    """Returns the C library where it is glibc: musl has neither malloc_trim nor mallopt."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True for an error raised because memory of the device or the machine ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def largest_batch_that_fits(trial: Callable[[int], None], failed: int) -> int | None:
    """Returns the largest of `failed` / 2, / 4, … images with which `trial` does not run out of memory.

    None where even two images are too many; batch norm needs two.
    """
    count = failed // 2
    while count >= 2:
        try:
            trial(count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return count
        count //= 2
    return None


def batches_in_memory(feed: Iterator[Batch], device: torch.device, images: int) -> Iterator[Batch]:
    """Yields the batches of `feed`.

    Raises:
        MemoryError: Two views of `images` images do not fit; the message names the parameters to lower.
    """
    try:
        yield from feed
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failure = error
    else:
        return
    raise MemoryError(
        f"out of memory on {device} while views of {images} images were made: use a smaller train.batch_size "
        "or data.image_size"
    ) from failure


def batch_size_advice(
    backward: Callable[[int], None],
    images: int,
    batch_size: int,
    accumulation_steps: int,
    device: torch.device,
) -> str:
    """Returns the message for a step that ran out of memory: which batch size or accumulation fits.

    Args:
        backward: Runs forward and backward on that many images. With several ranks it is not called, as batch
            statistics are shared and no rank can try alone.
        images: Images at once in the failed step.
        batch_size: Present value of train.batch_size.
        accumulation_steps: Present value of train.accumulation_steps.
        device: The device that ran out of memory.
    """
    said = f"out of memory on {device} with {images} images at once"
    if dist.world_size() > 1:
        return f"{said}: halve train.batch_size, or double train.accumulation_steps ({accumulation_steps})"
    with torch.compiler.set_stance("force_eager"):  # compiling for each size would take minutes
        found = largest_batch_that_fits(backward, images)
    if found is None:
        return f"{said}, and with two: use a smaller model.backbone, model.hidden_dim or data.image_size"
    return (
        f"{said}: {found} fit, so set train.batch_size to {found}, or train.accumulation_steps to "
        f"{-(-batch_size // found)}"
    )
