"""Counter-based random numbers: each is a function of (seed, epoch, image, view, number of the draw).

There is no state, so views do not depend on the number of workers, on the order in which images are read, or on where a
run was interrupted. The generator is SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014), used as a hash of the counter.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
S30, S27, S31, S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
UNIT = 2.0**-53


@njit(cache=True)
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's output function: a bijection of 64 bits in which every input bit moves every output bit."""
    value = (value ^ (value >> S30)) * FIRST
    value = (value ^ (value >> S27)) * SECOND
    return value ^ (value >> S31)


@njit(cache=True)
def join(key: np.uint64, word: int) -> np.uint64:
    """Derives the key of a sub-stream, such as that of an image from that of an epoch.

    The order matters: join(join(key, a), b) differs from join(join(key, b), a).
    """
    return mix(key + GOLDEN * (np.uint64(word) + np.uint64(1)))


@njit(cache=True)
def uniform(key: np.uint64, draw: int) -> float:
    """The number at position `draw` of the stream `key`: uniform in [0, 1), with 53 random bits."""
    return float(mix(key + GOLDEN * (np.uint64(draw) + np.uint64(1))) >> S11) * UNIT


def epoch_key(seed: int, epoch: int) -> np.uint64:
    """The key from which the keys of all images of an epoch are derived."""
    return np.uint64(
        join(np.uint64(join(np.uint64(0), seed)), epoch)
    )  # compiled code returns Python integers


@njit(cache=True)
def uniforms(key: np.uint64, index_B: NDArray[np.int64], stream: int, draws: int) -> NDArray[np.float64]:
    """Uniform numbers (B, draws) in [0, 1); row b is a function of `key`, `index_B[b]` and `stream` alone."""
    out = np.empty((len(index_B), draws))
    for b in range(len(index_B)):
        row = join(join(key, index_B[b]), stream)
        for draw in range(draws):
            out[b, draw] = uniform(row, draw)
    return out
