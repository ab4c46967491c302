"""Orders in which an epoch reads the images of a beton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 8 << 20
"""Bytes read in sequence: large enough for the sequential speed of a disk."""


def shuffle(index: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """A uniformly drawn permutation (N,) of all images; reads random places of the file."""
    return generator.permutation(index)


def chunk_shuffle(
    index: NDArray[np.int64], chunk: int, buffer: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """An order (N,) that reads the file in chunks of neighbouring images, for files larger than memory.

    The chunks are permuted, and then the images within windows of `buffer` (at least two chunks). So the images of a
    batch change from epoch to epoch, while only the pages of one window are read at a time.

    Args:
        index: The images, in the order of the file.
        chunk: Number of images in a chunk.
        buffer: Number of images in a window.
        generator: Source of random numbers.
    """
    chunks = [index[start : start + chunk] for start in range(0, len(index), chunk)]
    order = np.concatenate([chunks[place] for place in generator.permutation(len(chunks))])
    window = max(buffer, 2 * chunk)
    return np.concatenate(
        [generator.permutation(order[start : start + window]) for start in range(0, len(order), window)]
    )
