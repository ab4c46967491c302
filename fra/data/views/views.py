"""From two crops of an image to the two views that the networks see: flip, colour, blur, solarise, normalise.

On a GPU all operations are batched; on the CPU they are compiled and done an image at a time, on all of torch's
threads (`fra.data.views.cpu`: the same draws, the same results up to rounding). Their parameters are drawn per image by
counter (`fra.data.views.rng`), so a view is a function of (seed, epoch, image, view) alone. They are drawn on the CPU, which
so knows which images an operation is for: nothing is ever read back from a GPU. Images are (B, 3, H, W) in 0…1; the
operations are those of torchvision's ColorJitter, RandomGrayscale, GaussianBlur and RandomSolarize.
Recipe: the official code's (BYOL's augmentations; Grill et al. 2020, table 6).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fra.data.views import cpu
from fra.data.views.rng import epoch_key, uniforms

PHOTOMETRIC_STREAM = 2
"""Streams 0 and 1 of an image draw its two crops, 2 and 3 the colours of its two views."""
PARTS = 4
"""Pieces a thread that a batch is cut into on the CPU: images take unlike times, the slowest piece is waited for."""
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ViewsConfig:
    """Distribution of the views. Pairs are (low, high), or (first view, second view) where named `…_probability`."""

    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey_probability: float = 0.2
    blur_probability: tuple[float, float] = (1.0, 0.1)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: tuple[float, float] = (0.0, 0.2)
    mean: tuple[float, float, float] = (0.5231, 0.4044, 0.3489)
    std: tuple[float, float, float] = (0.2536, 0.2194, 0.2070)

    def __post_init__(self) -> None:
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"views.{name} is [{low}, {high}]: must be positive, the smaller first")
        if self.crop_scale[1] > 1:
            raise ValueError(
                f"views.crop_scale ends at {self.crop_scale[1]}: a crop cannot be larger than its image"
            )
        chances = (self.flip_probability, self.jitter_probability, self.grey_probability)
        for chance in (*chances, *self.blur_probability, *self.solarize_probability):
            if not 0 <= chance <= 1:
                raise ValueError(f"views: {chance} is not a probability (0 to 1)")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"views.hue is {self.hue}: must be 0 to 0.5 (of the colour circle)")


class Crops(NamedTuple):
    """A batch as the loaders yield it: two crops of each image and which images they are."""

    first_BHWC: Tensor
    second_BHWC: Tensor
    index_B: Tensor


class Draws(NamedTuple):
    """Parameters of one view of each image: (B,) tensors, on the CPU; masks are boolean."""

    flip: Tensor
    jitter: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor  # (B, 4): which of brightness, contrast, saturation, hue comes first, second …
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    solarize: Tensor


def draw(config: ViewsConfig, key: np.uint64, index_B: Tensor, view: int) -> Draws:
    """Draws the parameters of view `view` (0 or 1) of the images `index_B`."""
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


def beside(images: Tensor, values: Sequence[float]) -> Tensor:
    """`values` in the type and on the device of `images`, which nothing waits for."""
    return torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True)


def luma(images: Tensor) -> Tensor:
    """Grey value (B, 1, H, W) by ITU-R 601, as Pillow and torchvision have it."""
    return torch.einsum("bchw,c->bhw", images, beside(images, GREY)).unsqueeze(1)


def blend(images: Tensor, other: Tensor, factor_B: Tensor) -> Tensor:
    """factor · images + (1 − factor) · other, clipped to 0…1."""
    return torch.lerp(other, images, factor_B.view(-1, 1, 1, 1)).clamp_(0, 1)


def brightness(images: Tensor, factor_B: Tensor) -> Tensor:
    return (images * factor_B.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast(images: Tensor, factor_B: Tensor) -> Tensor:
    return blend(images, luma(images).mean(dim=(2, 3), keepdim=True), factor_B)


def saturation(images: Tensor, factor_B: Tensor) -> Tensor:
    return blend(images, luma(images), factor_B)


def hue(images: Tensor, turn_B: Tensor) -> Tensor:
    """Turns the hue by `turn_B` (in turns of the colour circle), keeping value and saturation (HSV)."""
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
    offsets = beside(images, (5.0, 3.0, 1.0)).view(1, 3, 1, 1)
    k = torch.remainder(sector.unsqueeze(1) + offsets, 6)
    return high.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp_(0, 1)


JITTER = (brightness, contrast, saturation, hue)


def change(images: Tensor, chosen_B: Tensor, operation: Callable[..., Tensor], *values_B: Tensor) -> None:
    """Have `operation` change the chosen images in place, given their share of `values_B`; both are on the CPU."""
    rows = chosen_B.nonzero().squeeze(1)
    if len(rows):
        there, *values = (
            x.to(images.device, non_blocking=True) for x in (rows, *(v[rows] for v in values_B))
        )
        images[there] = operation(images[there], *values)


def color_jitter(images: Tensor, draws: Draws) -> None:
    """Brightness, contrast, saturation and hue, in place and in each image's own order, where `jitter` is true."""
    factors = (draws.brightness, draws.contrast, draws.saturation, draws.hue)
    for place in range(len(JITTER)):
        for number, (operation, factor) in enumerate(zip(JITTER, factors, strict=True)):
            change(images, draws.jitter & (draws.order[:, place] == number), operation, factor)


def gaussian_blur(images: Tensor, sigma_B: Tensor, largest: float) -> Tensor:
    """Gaussian blur of `sigma_B` pixels, cut off at 3 · `largest` pixels, the border reflected."""
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
    """(images − mean) / std per channel; images (B, 3, H, W) in 0…1."""
    shift, scale = (beside(images, values).view(1, 3, 1, 1) for values in (mean, std))
    return (images - shift) / scale


def photometric(crops_BHWC: Tensor, draws: Draws, config: ViewsConfig) -> Tensor:
    """One normalised view of each crop, (B, H, W, 3) uint8 → (B, 3, H, W) float32, by batched operations on the crops'
    device."""
    images = crops_BHWC.permute(0, 3, 1, 2).float().div_(255)
    change(images, draws.flip, lambda chosen: chosen.flip(3))
    color_jitter(images, draws)
    change(images, draws.grey, lambda chosen: luma(chosen).expand_as(chosen))
    change(images, draws.blur, partial(gaussian_blur, largest=config.blur_sigma[1]), draws.sigma)
    change(images, draws.solarize, solarize)
    return normalize(images, config.mean, config.std)


def photometric_on_cpu(crops_BHWC: Tensor, draws: Draws, config: ViewsConfig) -> Tensor:
    """One normalised view of each crop, (B, H, W, 3) uint8 → (B, 3, H, W) float32, by compiled code in threads."""
    count, height, width, channels = crops_BHWC.shape
    out = torch.empty((count, channels, height, width))
    masks = torch.stack((draws.flip, draws.jitter, draws.grey, draws.blur, draws.solarize), dim=1)
    factors = torch.stack((draws.brightness, draws.contrast, draws.saturation, draws.hue, draws.sigma), dim=1)
    arrays = [tensor.numpy() for tensor in (crops_BHWC, masks, factors, draws.order, out)]
    mean, std = np.array(config.mean, dtype=np.float32), np.array(config.std, dtype=np.float32)

    def some(part: slice) -> None:
        crops, mask, factor, order, view = (array[part] for array in arrays)
        cpu.photometric(crops, mask, factor, order, config.blur_sigma[1], mean, std, view)

    threads = min(torch.get_num_threads(), count)
    if threads == 1:
        some(slice(None))
    else:
        edges = np.linspace(0, count, PARTS * threads + 1).astype(int)
        parts = [slice(a, b) for a, b in itertools.pairwise(edges.tolist()) if a < b]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, parts))
    return out


class Views:
    """Makes the two views of a batch of crops; the same seed, epoch and image give the same views."""

    def __init__(self, config: ViewsConfig, seed: int) -> None:
        self.config = config
        self.seed = seed

    def __call__(self, crops: Crops, epoch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Crops (B, H, W, 3) uint8 → two normalised views (B, 3, H, W) float32 on `device`."""
        key = epoch_key(self.seed, epoch)
        make = photometric_on_cpu if device.type == "cpu" else photometric
        pair = (crops.first_BHWC, crops.second_BHWC)
        there = [crop.to(device, non_blocking=True) for crop in pair]  # both, before either keeps a GPU busy
        first, second = (
            make(crop, draw(self.config, key, crops.index_B, view), self.config)
            for view, crop in enumerate(there)
        )
        return first, second
