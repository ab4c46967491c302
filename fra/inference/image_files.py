"""Images from files, folders, glob patterns and tar shards, decoded ahead of their use."""

from __future__ import annotations

import glob
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fra.data.datasets.annotation_files import IMAGE_SUFFIXES, image_files
from fra.data.datasets.tar_images import image_members
from fra.data.images import ImageError, decode, read_file, resize

T = TypeVar("T")
U = TypeVar("U")


class File(NamedTuple):
    """An image file: its name, and a function that reads its bytes."""

    name: str
    read: Callable[[], bytes]


class Batch(NamedTuple):
    """Images of one size: names, and pixels (N, 3, size, size), uint8, RGB."""

    names: list[str]
    pixels_N3HW: Tensor


@dataclass
class Unreadable:
    """Files that cannot be decoded as an image, with the reason by name."""

    reasons: dict[str, str] = field(default_factory=dict)


def expand(pattern: str) -> list[Path]:
    """Return the files and folders that a path or glob pattern stands for; folders are not opened.

    Raises:
        FileNotFoundError: There are none.
    """
    found = [Path(pattern)]
    if not found[0].exists():
        found = sorted(map(Path, glob.glob(_escape_folders(pattern), recursive=True)))
    if not found:
        raise FileNotFoundError(f"{pattern}: no such file or folder, and no file matches it as a pattern")
    return found


def _escape_folders(pattern: str) -> str:
    """Returns the pattern with its leading folders escaped as far as they exist, such as the folder `[2024]`."""
    folder, rest = Path(), list(Path(pattern).parts)
    while rest and (folder / rest[0]).exists():
        folder /= rest.pop(0)
    return str(Path(glob.escape(str(folder)), *rest))


def files_below(folder: Path) -> list[str]:
    """Return the image files below a folder as relative paths.

    Raises:
        FileNotFoundError: The folder holds no image.
    """
    try:
        return image_files(folder)
    except FileNotFoundError:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise FileNotFoundError(
            f"{folder}: no image in this folder (searched at any depth for {suffixes}); give a folder of images"
        ) from None


def resolve(patterns: Sequence[str]) -> list[str]:
    """Return the files that paths and glob patterns stand for, with a folder replaced by the images in it.

    Folders are searched at any depth for image suffixes only, so a tar shard must be matched by a path or pattern. A
    file that is matched itself is returned whatever its suffix.

    Raises:
        FileNotFoundError: A path or pattern matches nothing, or a folder holds no image.
    """
    paths: list[str] = []
    for pattern in patterns:
        for path in expand(pattern):
            paths += [str(path / name) for name in files_below(path)] if path.is_dir() else [str(path)]
    return paths


def find(patterns: Sequence[str]) -> Iterator[File]:
    """Yield each file that `resolve` returns; of a tar shard (`.tar`) the images in it. Nothing is decoded.

    Raises:
        FileNotFoundError: A path or pattern matches nothing, or a folder holds no image.
        ValueError: A tar shard is not a tar file, or a name leads out of it.
    """
    for path in resolve(patterns):
        if path.endswith(".tar"):
            yield from members(Path(path))
        else:
            yield File(path, partial(read_file, path))


def members(shard: Path) -> Iterator[File]:
    """Yield the images in a tar file.

    Raises:
        ValueError: It is not a tar file, or a name leads out of it.
    """
    with shard.open("rb") as stream:
        places = image_members(stream, str(shard), Counter())
    for name, (offset, size) in places.items():
        yield File(f"{shard}/{name}", partial(read_part, shard, offset, size))


def read_part(path: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file, starting at the byte `offset`."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def map_ahead(function: Callable[[T], U], items: Iterable[T], count: int) -> Iterator[U]:
    """Yield `function` of every item in order, computed by threads at most `count` items ahead."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        source = iter(items)
        waiting: deque[Future[U]] = deque(pool.submit(function, item) for item in islice(source, count))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield done


def batches(patterns: Sequence[str], size: int, batch_size: int, unreadable: Unreadable) -> Iterator[Batch]:
    """Yield all images that `find` finds, resized to `size` × `size`, in batches; raises what `find` raises.

    Files that cannot be read or decoded are added to `unreadable`.
    """

    def pixels(file: File) -> tuple[str, NDArray[np.uint8] | str]:
        try:
            return file.name, resize(decode(file.read()), size)
        except (ImageError, OSError) as error:
            return file.name, str(error)

    names: list[str] = []
    images: list[NDArray[np.uint8]] = []
    for name, image in map_ahead(pixels, find(patterns), 3 * batch_size):
        if isinstance(image, str):
            unreadable.reasons[name] = image
            continue
        names.append(name)
        images.append(image)
        if len(names) == batch_size:
            yield batch_of(names, images)
            names, images = [], []
    if names:
        yield batch_of(names, images)


def batch_of(names: list[str], images: list[NDArray[np.uint8]]) -> Batch:
    """Stack images (size, size, 3) into a batch."""
    return Batch(names, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
