"""Makes the two views that the networks see from two crops: flip, colour jitter, grey, blur, solarise, normalise.

On a GPU all operations are batched. On the CPU they are compiled and applied to one image at a time, in all of torch's
threads (`fra.data.views.cpu`: the same parameters, the same results up to rounding). The parameters of each image are
counter-based random numbers (`fra.data.views.rng`), so that a view is a function of (seed, epoch, image, view) alone.
They are drawn on the CPU, which therefore knows the images of each operation without reading anything back from a GPU.
Images are (B, 3, H, W) in 0…1; the operations are those of torchvision's ColorJitter, RandomGrayscale, GaussianBlur and
RandomSolarize. The recipe is that of the official code (BYOL's augmentations; Grill et al. 2020, table 6).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fra.data.views import cpu
from fra.data.views.config import ViewsConfig
from fra.data.views.memory import RecycledMemory
from fra.data.views.rng import epoch_key, uniforms
from fra.parallel import cores

PHOTOMETRIC_STREAM = 2
"""Streams 0 and 1 of an image are for its two crops, 2 and 3 for the colours of its two views."""
PARTS_PER_THREAD = 4
"""Number of parts of a batch per CPU thread: small parts balance the load, as images take different times."""
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value (ITU-R 601)."""


class Crops(NamedTuple):
    """A batch of a loader: two crops (B, H, W, 3) of each image, uint8, and the image indices (B,)."""

    first_BHWC: Tensor
    second_BHWC: Tensor
    index_B: Tensor


class Draws(NamedTuple):
    """Parameters of one view of each image: tensors (B,) on the CPU; flip, jitter, grey, blur, solarize are boolean."""

    flip: Tensor
    jitter: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor  # (B, 4): the order of brightness (0), contrast (1), saturation (2), hue (3)
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    solarize: Tensor


def draw(config: ViewsConfig, key: np.uint64, index_B: Tensor, view: int) -> Draws:
    """Draws the parameters of view `view` (0 or 1) of the images `index_B`, with the random key of the epoch."""
    numbers = uniforms(key, index_B.numpy(), PHOTOMETRIC_STREAM + view, 14)
    u = torch.from_numpy(numbers.astype(np.float32))

    def factor(column: int, strength: float) -> Tensor:
        low = max(0.0, 1 - strength)
        return low + (1 + strength - low) * u[:, column]

    sigma_low, sigma_high = config.blur_sigma
    return Draws(
        flip=u[:, 0] < config.flip_probability,
        jitter=u[:, 1] < config.jitter_probability,
        brightness=factor(2, config.brightness),
        contrast=factor(3, config.contrast),
        saturation=factor(4, config.saturation),
        hue=(2 * u[:, 5] - 1) * config.hue,
        order=u[:, 6:10].argsort(dim=1),
        grey=u[:, 10] < config.grey_probability,
        blur=u[:, 11] < config.blur_probability[view],
        sigma=sigma_low + (sigma_high - sigma_low) * u[:, 12],
        solarize=u[:, 13] < config.solarize_probability[view],
    )


def constant_like(images: Tensor, values: Sequence[float]) -> Tensor:
    """A tensor of `values` with the type and device of `images`, transferred without waiting."""
    return torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True)


def luma(images: Tensor) -> Tensor:
    """The grey value (B, 1, H, W) by ITU-R 601, as in Pillow and torchvision."""
    return torch.einsum("bchw,c->bhw", images, constant_like(images, GREY)).unsqueeze(1)


def blend(images: Tensor, other: Tensor, factor_B: Tensor) -> Tensor:
    """The blend factor · images + (1 − factor) · other, clipped to 0…1."""
    return torch.lerp(other, images, factor_B.view(-1, 1, 1, 1)).clamp_(0, 1)


def brightness(images: Tensor, factor_B: Tensor) -> Tensor:
    """Multiplies each image by its factor, clipped to 0…1."""
    return (images * factor_B.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast(images: Tensor, factor_B: Tensor) -> Tensor:
    """Blends each image with its mean grey value."""
    return blend(images, luma(images).mean(dim=(2, 3), keepdim=True), factor_B)


def saturation(images: Tensor, factor_B: Tensor) -> Tensor:
    """Blends each image with its grey version."""
    return blend(images, luma(images), factor_B)


def hue(images: Tensor, turn_B: Tensor) -> Tensor:
    """Rotates the hue by `turn_B` (1 is the full colour circle), keeping value and saturation (HSV)."""
    high, low = images.amax(dim=1), images.amin(dim=1)
    chroma = high - low
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    red, green, blue = images.unbind(dim=1)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sector = sector + 6 * turn_B.view(-1, 1, 1)
    # channel = value − chroma · clip(min(k, 4 − k), 0, 1) with k = (n + sector) mod 6, n = 5, 3, 1 (Smith 1978)
    offsets = constant_like(images, (5.0, 3.0, 1.0)).view(1, 3, 1, 1)
    k = torch.remainder(sector.unsqueeze(1) + offsets, 6)
    return high.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp_(0, 1)


JITTER = (brightness, contrast, saturation, hue)


def apply_to(images: Tensor, mask_B: Tensor, operation: Callable[..., Tensor], *values_B: Tensor) -> None:
    """Applies an operation in place to the images where `mask_B` is true.

    Args:
        images: (B, 3, H, W).
        mask_B: Which images, on the CPU.
        operation: Called with the images and with their part of each of `values_B`.
        values_B: Parameters of the operation, on the CPU.
    """
    rows = mask_B.nonzero().squeeze(1)
    if len(rows):
        selected, *values = (
            x.to(images.device, non_blocking=True) for x in (rows, *(v[rows] for v in values_B))
        )
        images[selected] = operation(images[selected], *values)


def color_jitter(images: Tensor, draws: Draws) -> None:
    """Changes brightness, contrast, saturation and hue in place, in each image's own order, where `jitter` is true."""
    factors = (draws.brightness, draws.contrast, draws.saturation, draws.hue)
    for place in range(len(JITTER)):
        for number, (operation, factor) in enumerate(zip(JITTER, factors, strict=True)):
            apply_to(images, draws.jitter & (draws.order[:, place] == number), operation, factor)


def gaussian_blur(images: Tensor, sigma_B: Tensor, largest: float) -> Tensor:
    """Gaussian blur of `sigma_B` pixels, truncated at 3 · `largest` pixels, with the border reflected."""
    count, channels, height, width = images.shape
    radius = max(1, min(math.ceil(3 * largest), height - 1, width - 1))
    steps = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (steps / sigma_B.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = F.pad(images.reshape(1, count * channels, height, width), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel.view(-1, 1, 2 * radius + 1, 1), groups=count * channels)
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, 2 * radius + 1), groups=count * channels)
    return flat.view(count, channels, height, width)


def solarize(images: Tensor) -> Tensor:
    """Inverts pixels of half brightness (128 of 255) and above."""
    return torch.where(images >= 128 / 255, 1 - images, images)


def normalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """The normalised images (images − mean) / std per channel; images (B, 3, H, W) in 0…1."""
    shift, scale = (constant_like(images, values).view(1, 3, 1, 1) for values in (mean, std))
    return (images - shift) / scale


def photometric(crops_BHWC: Tensor, draws: Draws, config: ViewsConfig) -> Tensor:
    """One normalised view of each crop, by batched operations on the device of the crops.

    Args:
        crops_BHWC: The crops (B, H, W, 3), uint8.
        draws: The parameters of the view.
        config: The distribution of the views.

    Returns:
        The views (B, 3, H, W), float32.
    """
    images = crops_BHWC.permute(0, 3, 1, 2).float().div_(255)
    apply_to(images, draws.flip, lambda selected: selected.flip(3))
    color_jitter(images, draws)
    apply_to(images, draws.grey, lambda selected: luma(selected).expand_as(selected))
    apply_to(images, draws.blur, partial(gaussian_blur, largest=config.blur_sigma[1]), draws.sigma)
    apply_to(images, draws.solarize, solarize)
    return normalize(images, config.mean, config.std)


def crops_in_a_row(crops_BHWC: Tensor) -> tuple[NDArray[np.uint8], int]:
    """The memory of the crops (N,), and the number of bytes from one crop to the next; copied only where needed."""
    crops = crops_BHWC if crops_BHWC[0].is_contiguous() else crops_BHWC.contiguous()
    step, size = crops.stride(0), crops[0].numel()
    return crops.as_strided((step * (len(crops) - 1) + size,), (1,)).numpy(), step


def photometric_on_cpu(
    crops_BHWC: Tensor, draws: Draws, config: ViewsConfig, memory: RecycledMemory
) -> Tensor:
    """One normalised view of each crop in `memory`, as `photometric`, but by compiled code in CPU threads."""
    count, height, width, channels = crops_BHWC.shape
    out = memory.empty((count, channels, height, width))
    masks = torch.stack((draws.flip, draws.jitter, draws.grey, draws.blur, draws.solarize), dim=1)
    factors = torch.stack((draws.brightness, draws.contrast, draws.saturation, draws.hue, draws.sigma), dim=1)
    pixels, step = crops_in_a_row(crops_BHWC)
    arrays = [tensor.numpy() for tensor in (masks, factors, draws.order, out)]
    mean, std = np.array(config.mean, dtype=np.float32), np.array(config.std, dtype=np.float32)

    def process(part: slice) -> None:
        mask, factor, order, view = (array[part] for array in arrays)
        first = pixels[part.start * step :]
        cpu.photometric(first, step, mask, factor, order, config.blur_sigma[1], mean, std, view)

    threads = min(cores(), count)
    if threads == 1:
        process(slice(0, count))
    else:
        edges = np.linspace(0, count, PARTS_PER_THREAD * threads + 1).astype(int)
        parts = [slice(a, b) for a, b in itertools.pairwise(edges.tolist()) if a < b]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(process, parts))
    return out


class Views:
    """Makes the two views of a batch of crops: a function of seed, epoch and image."""

    def __init__(self, config: ViewsConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._memory = RecycledMemory()

    def __call__(self, crops: Crops, epoch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The two normalised views (B, 3, H, W), float32, of the crops of a batch, on `device`."""
        key = epoch_key(self.seed, epoch)
        on_cpu = device.type == "cpu"
        make = partial(photometric_on_cpu, memory=self._memory) if on_cpu else photometric
        pair = (crops.first_BHWC, crops.second_BHWC)
        moved = [crop.to(device, non_blocking=True) for crop in pair]  # both transfers before any computation
        first, second = (
            make(crop, draw(self.config, key, crops.index_B, view), self.config)
            for view, crop in enumerate(moved)
        )
        return first, second
