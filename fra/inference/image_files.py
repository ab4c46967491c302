"""Images from wherever they lie: files, folders, globs, WebDataset shards; decoded ahead of whoever uses them."""

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

from fra.data.datasets.annotation_files import image_files
from fra.data.datasets.tar_images import image_members
from fra.data.images import ImageError, decode, read_file, resize

T = TypeVar("T")
U = TypeVar("U")


class File(NamedTuple):
    """An image that was found: its name, and how to read its bytes."""

    name: str
    read: Callable[[], bytes]


class Batch(NamedTuple):
    """Images of one size: their names, and pixels (N, 3, size, size), uint8, RGB."""

    names: list[str]
    pixels_N3HW: Tensor


@dataclass
class Unread:
    """Files that hold no image that can be decoded, and why."""

    reasons: dict[str, str] = field(default_factory=dict)


def find(places: Sequence[str]) -> Iterator[File]:
    """The images that `places` name: files, folders (at any depth), glob patterns, tar shards.

    Raises:
        FileNotFoundError: nothing is there, or a folder holds no image.
    """
    for place in places:
        found = [Path(place)] if Path(place).exists() else sorted(map(Path, glob.glob(place, recursive=True)))
        if not found:
            raise FileNotFoundError(f"{place}: no such file or folder, and no file fits it as a pattern")
        for path in found:
            if path.is_dir():
                yield from (
                    File(str(path / name), partial(read_file, path / name)) for name in image_files(path)
                )
            elif path.suffix == ".tar":
                yield from members(path)
            else:
                yield File(str(path), partial(read_file, path))


def members(shard: Path) -> Iterator[File]:
    """The images in a tar.

    Raises:
        ValueError: It is not a tar, or a name leads out of it.
    """
    with shard.open("rb") as stream:
        places = image_members(stream, str(shard), Counter())
    for name, (offset, size) in places.items():
        yield File(f"{shard}/{name}", partial(read_part, shard, offset, size))


def read_part(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file from the byte `offset` on."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def ahead(function: Callable[[T], U], items: Iterable[T], count: int) -> Iterator[U]:
    """`function` of every item, in order, worked out by threads at most `count` items ahead."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        source = iter(items)
        waiting: deque[Future[U]] = deque(pool.submit(function, item) for item in islice(source, count))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield done


def batches(places: Sequence[str], size: int, batch_size: int, unread: Unread) -> Iterator[Batch]:
    """All images that `places` name, scaled to `size` squared, in batches; what cannot be decoded goes to `unread`."""

    def pixels(file: File) -> tuple[str, NDArray[np.uint8] | str]:
        try:
            return file.name, resize(decode(file.read()), size)
        except (ImageError, OSError) as error:
            return file.name, str(error)

    names: list[str] = []
    images: list[NDArray[np.uint8]] = []
    for name, image in ahead(pixels, find(places), 3 * batch_size):
        if isinstance(image, str):
            unread.reasons[name] = image
            continue
        names.append(name)
        images.append(image)
        if len(names) == batch_size:
            yield batch_of(names, images)
            names, images = [], []
    if names:
        yield batch_of(names, images)


def batch_of(names: list[str], images: list[NDArray[np.uint8]]) -> Batch:
    return Batch(names, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
