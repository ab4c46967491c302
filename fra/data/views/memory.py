"""Memory of views that is used again, since new memory from the system costs more than the views written into it."""

from __future__ import annotations

import math
import weakref
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class RecycledMemory:
    """Gives out tensors, and their memory again once nothing refers to the tensor or a part of it any more.

    The system clears every page of new memory when it is first written. Several threads may use one instance.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.float32]] = []

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of that shape, float32, with arbitrary values."""
        memory = self._take(math.prod(shape))
        lent = memory.reshape(
            shape
        )  # the tensor's memory refers to this array until the last part of it is deleted
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent)

    def _take(self, size: int) -> NDArray[np.float32]:
        """Free memory for `size` values, or new memory; free memory of another size is given up."""
        with suppress(IndexError):
            while True:
                memory = self._free.pop()
                if memory.size == size:
                    return memory
        return torch.empty(size).numpy()  # aligned as PyTorch needs it
