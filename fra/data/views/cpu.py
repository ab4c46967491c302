"""The operations of `fra.data.views.views` as compiled code for the CPU: the same formulas, one image at a time.

An image stays in the processor's cache from its bytes to its normalised view. The functions release Python's global
lock, so that several threads can work on different images; they share no state.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

RED, GREEN, BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)
ZERO, ONE = np.float32(0), np.float32(1)
HALF = np.float32(128 / 255)
NEGLIGIBLE = 1e-9
"""Blur weights below this value do not change a float32."""
FAST = {"nsz", "nnan", "ninf", "contract", "arcp"}
"""Compiler optimisations that change only rounding; a function that also reorders sums uses `fastmath=True`."""


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def clip(value: np.float32) -> np.float32:
    """The value limited to 0…1."""
    return min(max(value, ZERO), ONE)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def unpack(pixels_N: NDArray[np.uint8], width: int, flip: bool, out_3N: NDArray[np.float32]) -> None:
    """Converts bytes (H · W · 3) to planes (3, H · W) in 0…1, mirrored where `flip` is set.

    The indices are unsigned: signed ones may be negative, and the check for it keeps the compiler from vectorising.
    """
    scale = np.float32(1 / 255)
    length, last = np.uint64(width), np.uint64(width - 1)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for start in range(0, out_3N.shape[1], width):
        pixels = pixels_N[3 * start : 3 * (start + width)]
        row = slice(start, start + width)
        red, green, blue = out_3N[0, row], out_3N[1, row], out_3N[2, row]
        if flip:
            for j in range(length):
                red[last - j] = np.float32(pixels[three * j]) * scale
                green[last - j] = np.float32(pixels[three * j + one]) * scale
                blue[last - j] = np.float32(pixels[three * j + two]) * scale
        else:
            for j in range(length):
                red[j] = np.float32(pixels[three * j]) * scale
                green[j] = np.float32(pixels[three * j + one]) * scale
                blue[j] = np.float32(pixels[three * j + two]) * scale


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def mean_luma(image_3N: NDArray[np.float32]) -> np.float32:
    """The mean grey value; the compiler chooses the order of summation."""
    red, green, blue = image_3N[0], image_3N[1], image_3N[2]
    total: float | np.floating[Any] = 0.0
    for start in range(0, len(red), 512):
        part = ZERO
        for n in range(start, min(start + 512, len(red))):
            part += RED * red[n] + GREEN * green[n] + BLUE * blue[n]
        total += part
    return np.float32(total / len(red))


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def brightness(image_3N: NDArray[np.float32], factor: np.float32) -> None:
    """Multiplies all values by `factor`, in place, clipped to 0…1."""
    for c in range(3):
        plane = image_3N[c]
        for n in range(len(plane)):
            plane[n] = clip(plane[n] * factor)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def contrast(image_3N: NDArray[np.float32], factor: np.float32) -> None:
    """Blends with the mean grey value, in place: factor · image + (1 − factor) · mean, clipped to 0…1."""
    shift = (ONE - factor) * mean_luma(image_3N)
    for c in range(3):
        plane = image_3N[c]
        for n in range(len(plane)):
            plane[n] = clip(plane[n] * factor + shift)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def saturation(image_3N: NDArray[np.float32], factor: np.float32) -> None:
    """Blends with the grey image, in place: factor · image + (1 − factor) · grey, clipped to 0…1."""
    red, green, blue = image_3N[0], image_3N[1], image_3N[2]
    for n in range(len(red)):
        shift = (ONE - factor) * (RED * red[n] + GREEN * green[n] + BLUE * blue[n])
        red[n] = clip(red[n] * factor + shift)
        green[n] = clip(green[n] * factor + shift)
        blue[n] = clip(blue[n] * factor + shift)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def ramp(k: np.float32) -> np.float32:
    """The value of clip(min(k mod 6, 4 − k mod 6), 0, 1), for k from −6 to 18."""
    six, four = np.float32(6), np.float32(4)
    k = k - six if k >= six else k
    k = k - six if k >= six else k
    k = k + six if k < ZERO else k
    return clip(min(k, four - k))


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def hue(image_3N: NDArray[np.float32], turn: np.float32) -> None:
    """Rotates the hue in place by `turn` (1 is the full colour circle), keeping value and saturation (HSV)."""
    red, green, blue = image_3N[0], image_3N[1], image_3N[2]
    shift = np.float32(6) * turn
    for n in range(len(red)):
        r, g, b = red[n], green[n], blue[n]
        high, low = max(r, max(g, b)), min(r, min(g, b))
        chroma = high - low
        inverse = ONE / (chroma if chroma > ZERO else ONE)
        by_red = (g - b) * inverse
        by_green = (b - r) * inverse + np.float32(2)
        by_blue = (r - g) * inverse + np.float32(4)
        sector = (by_red if high == r else (by_green if high == g else by_blue)) + shift
        red[n] = high - chroma * ramp(sector + np.float32(5))
        green[n] = high - chroma * ramp(sector + np.float32(3))
        blue[n] = high - chroma * ramp(sector + np.float32(1))


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def grey(image_3N: NDArray[np.float32]) -> None:
    """Replaces the three channels by the grey value, in place."""
    red, green, blue = image_3N[0], image_3N[1], image_3N[2]
    for n in range(len(red)):
        value = RED * red[n] + GREEN * green[n] + BLUE * blue[n]
        red[n] = value
        green[n] = value
        blue[n] = value


@njit(nogil=True, cache=True)
def gaussian(sigma: float, radius: int) -> tuple[NDArray[np.float32], int]:
    """Weights (radius + 1,) of a truncated Gaussian from its centre, and the last of them that matters in float32."""
    weights = np.empty(radius + 1, dtype=np.float64)
    for step in range(radius + 1):
        weights[step] = math.exp(-0.5 * (step / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    reach = 0
    for step in range(radius + 1):
        if weights[step] > NEGLIGIBLE:
            reach = step
    return weights.astype(np.float32), reach


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def gaussian_blur(
    image_CHW: NDArray[np.float32], sigma: float, radius: int, scratch_HW: NDArray[np.float32]
) -> None:
    """Gaussian blur in place, with the border reflected; `scratch_HW` is a buffer (H, W + 2 · radius)."""
    weights, reach = gaussian(sigma, radius)
    channels, height, width = image_CHW.shape
    if reach == 0:
        return
    for c in range(channels):
        plane = image_CHW[c]
        for i in range(height):  # along the columns, into the middle of the buffer
            row = scratch_HW[i, radius : radius + width]
            middle = plane[i]
            for j in range(width):
                row[j] = weights[0] * middle[j]
            for step in range(1, reach + 1):
                up, down = abs(i - step), i + step
                down = 2 * (height - 1) - down if down >= height else down
                above, below, weight = plane[up], plane[down], weights[step]
                for j in range(width):
                    row[j] += weight * (above[j] + below[j])
        for i in range(height):  # along the rows, with a reflected border
            row = scratch_HW[i]
            for step in range(1, reach + 1):
                row[radius - step] = row[radius + step]
                row[radius + width - 1 + step] = row[radius + width - 1 - step]
            out = plane[i]
            middle = row[radius : radius + width]
            for j in range(width):
                out[j] = weights[0] * middle[j]
            for step in range(1, reach + 1):
                weight = weights[step]
                left = row[radius - step : radius - step + width]
                right = row[radius + step : radius + step + width]
                for j in range(width):
                    out[j] += weight * (left[j] + right[j])


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def finish(
    image_3N: NDArray[np.float32], solarize: bool, mean: NDArray[np.float32], std: NDArray[np.float32]
) -> None:
    """Solarises where `solarize` is set, then normalises, in place."""
    for c in range(3):
        plane, shift, scale = image_3N[c], mean[c], ONE / std[c]
        if solarize:
            for n in range(len(plane)):
                value = plane[n]
                plane[n] = ((ONE - value if value >= HALF else value) - shift) * scale
        else:
            for n in range(len(plane)):
                plane[n] = (plane[n] - shift) * scale


@njit(nogil=True, cache=True)
def photometric(
    pixels_N: NDArray[np.uint8],
    step: int,
    masks: NDArray[np.bool_],
    factors: NDArray[np.float32],
    order: NDArray[np.int64],
    largest_sigma: float,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    out_B3HW: NDArray[np.float32],
) -> None:
    """One normalised view of each crop, equal to that of `fra.data.views.views.photometric` up to rounding.

    Args:
        pixels_N: The crops, each H · W · 3 bytes; the compiler must know that these are next to each other.
        step: Number of bytes from the start of one crop to that of the next.
        masks: (B, 5): whether to apply flip, jitter, grey, blur, solarise.
        factors: (B, 5): brightness, contrast, saturation, hue, sigma.
        order: (B, 4): the order in which brightness (0), contrast (1), saturation (2) and hue (3) are applied.
        largest_sigma: The largest sigma of the blur that can be drawn, in pixels.
        mean: Per channel (3,).
        std: Per channel (3,).
        out_B3HW: The result (B, 3, H, W), float32.
    """
    count, _, height, width = out_B3HW.shape
    radius = max(1, min(math.ceil(3 * largest_sigma), min(height, width) - 1))
    scratch = np.empty((height, width + 2 * radius), dtype=np.float32)
    for b in range(count):
        image_3HW = out_B3HW[b]
        image_3N = image_3HW.reshape(3, height * width)
        unpack(pixels_N[b * step : b * step + 3 * height * width], width, masks[b, 0], image_3N)
        if masks[b, 1]:
            for place in range(4):
                number = order[b, place]
                if number == 0:
                    brightness(image_3N, factors[b, 0])
                elif number == 1:
                    contrast(image_3N, factors[b, 1])
                elif number == 2:
                    saturation(image_3N, factors[b, 2])
                else:
                    hue(image_3N, factors[b, 3])
        if masks[b, 2]:
            grey(image_3N)
        if masks[b, 3]:
            different = 1 if masks[b, 2] else 3
            gaussian_blur(image_3HW[:different], factors[b, 4], radius, scratch)
            image_3HW[different:] = image_3HW[0]
        finish(image_3N, masks[b, 4], mean, std)
