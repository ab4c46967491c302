"""In which order an epoch reads the images of a beton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 8 << 20
"""What is read in one go: large enough for the sequential speed of a disk."""


def shuffled(index: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """A permutation of all images (N,): every order is as likely. Reads at random places of the file."""
    return generator.permutation(index)


def chunk_shuffled(
    index: NDArray[np.int64], chunk: int, buffer: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """An order (N,) that reads the file in runs of `chunk` images, for files larger than memory.

    The runs are permuted, and then the images in windows of `buffer` (at least two runs): what comes together in a
    batch changes from epoch to epoch, and the pages that are being read are those of one window.
    """
    runs = [index[start : start + chunk] for start in range(0, len(index), chunk)]
    order = np.concatenate([runs[place] for place in generator.permutation(len(runs))])
    window = max(buffer, 2 * chunk)
    return np.concatenate(
        [generator.permutation(order[start : start + window]) for start in range(0, len(order), window)]
    )
