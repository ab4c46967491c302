"""Batches of two crops an image, from betons (FFCV) or from tar shards (WebDataset).

Both give the same crops of an image in an epoch, up to decoding, whatever the number of workers. Their order of
images differs: FFCV shuffles the whole epoch; WebDataset streams, and shuffles shards and a buffer.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
import webdataset
from ffcv.fields.decoders import IntDecoder
from ffcv.fields.rgb_image import IMAGE_MODES, ResizedCropRGBImageDecoder
from ffcv.libffcv import imdecode, resize_crop
from ffcv.loader import Loader as CompiledLoader
from ffcv.pipeline import PipelineSpec
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from ffcv.traversal_order.base import TraversalOrder
from numpy.typing import NDArray

from fra.data.crops import crop_box
from fra.data.images import decode, resize
from fra.data.rng import epoch_key
from fra.data.views import Crops, ViewsConfig

IMAGE_SUFFIXES = ("jpg", "png", "pgm", "bmp", "webp", "tif")


@dataclass(frozen=True)
class DataConfig:
    """How batches are read. `workers` 0 = one a core; `shuffle_buffer` (images) is for WebDataset alone."""

    loader: str = "ffcv"
    image_size: int = 224
    workers: int = 0
    batches_ahead: int = 3
    shuffle_buffer: int = 10_000

    def __post_init__(self) -> None:
        if self.loader not in ("ffcv", "webdataset"):
            raise ValueError(f"data.loader is {self.loader!r}: choose ffcv or webdataset")
        if self.image_size < 8:
            raise ValueError(f"data.image_size is {self.image_size}: must be at least 8 pixels")


class Loader(Protocol):
    """What pre-training asks of a loader."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        """The batches of an epoch from `start_step` on; the same arguments give the same batches."""
        ...


def steps(images: int, batch_size: int, world_size: int) -> int:
    """Full batches that every rank can make of its share.

    Raises:
        ValueError: there is not one.
    """
    count = images // world_size // batch_size
    if count == 0:
        raise ValueError(
            f"{images} images make no batch of {batch_size} on each of {world_size} ranks: "
            f"set train.batch_size to {max(1, images // world_size)} or less"
        )
    return count


class EpochOrder(TraversalOrder):  # type: ignore[misc]
    """The images of one rank in one epoch: its part of a permutation drawn from (seed, epoch)."""

    def __init__(self, index: NDArray[np.int64], seed: int, rank: int, world_size: int) -> None:
        self.index, self.seed, self.rank, self.world_size = index, seed, rank, world_size
        self.start = 0

    def __call__(self, loader: CompiledLoader) -> EpochOrder:
        return self  # FFCV calls what it is given as `order` with the loader

    def sample_order(self, epoch: int) -> NDArray[np.int64]:
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.index)
        share = len(shuffled) // self.world_size * self.world_size
        return shuffled[self.rank : share : self.world_size][self.start :]


class TwoCrops(ResizedCropRGBImageDecoder):  # type: ignore[misc]
    """Decodes an image once and cuts both crops out of it: (2, size, size, 3), the boxes from `crop_box`.

    The key of the epoch must reach compiled code that is compiled only once: it travels in the operation's memory,
    which FFCV allocates anew at the start of each epoch (`FFCVPairs` fills it then).
    """

    def __init__(self, size: int, views: ViewsConfig) -> None:
        super().__init__((size, size))
        self.views = views

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, tuple[AllocationQuery, ...]]:
        compressed = bool((self.metadata["mode"] == IMAGE_MODES["jpg"]).any())
        pixels = int(self.metadata["height"].max()) * int(self.metadata["width"].max()) * 3 if compressed else 1
        shape = (2, *self.output_size, 3)
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=np.dtype("<u1"))
        return state, (
            AllocationQuery(shape, np.dtype("<u1")),
            AllocationQuery((pixels,), np.dtype("<u1")),
            AllocationQuery((1,), np.dtype("<i8")),
        )

    @property
    def get_crop_generator(self) -> Callable[..., tuple[int, int, int, int]]:
        return crop_box  # type: ignore[no-any-return]

    def generate_code(self) -> Callable[..., Any]:
        jpg = IMAGE_MODES["jpg"]
        read = self.memory_read
        parallel_range = Compiler.get_iterator()
        decode_jpg = Compiler.compile(imdecode)
        cut = Compiler.compile(resize_crop)
        scale, ratio = self.views.crop_scale, self.views.crop_ratio

        def decode_and_cut(batch_indices, memory, metadata, storage_state):  # type: ignore[no-untyped-def]
            destination, scratch, key = memory
            for place in parallel_range(len(batch_indices)):
                index = batch_indices[place]
                field = metadata[index]
                content = read(field["data_ptr"], storage_state)
                height, width = np.uint32(field["height"]), np.uint32(field["width"])
                if field["mode"] == jpg:
                    pixels = scratch[place][: np.uint64(3) * height * width]
                    decode_jpg(content, pixels, height, width, height, width, 0, 0, 1, 1, False, False)
                    image = pixels.reshape(height, width, 3)
                else:
                    image = content.reshape(height, width, 3)
                for view in range(2):
                    i, j, h, w = crop_box(
                        np.uint64(key[place][0]), np.int64(index), view, np.int64(height), np.int64(width), scale, ratio
                    )
                    cut(image, i, i + h, j, j + w, destination[place][view])
            return destination[: len(batch_indices)]

        decode_and_cut.is_parallel = True  # type: ignore[attr-defined]
        return decode_and_cut


class FFCVPairs:
    """Pairs from a beton. FFCV compiles the pipeline once, at the first epoch (some 15 s)."""

    def __init__(
        self,
        config: DataConfig,
        views: ViewsConfig,
        beton: Path,
        index: NDArray[np.int64],
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.steps_per_epoch = steps(len(index), batch_size, world_size)
        self.batch_size = batch_size
        self.seed = seed
        self.order = EpochOrder(index, seed, rank, world_size)
        self.key = np.int64(0)
        threads = torch.get_num_threads()
        self.loader = CompiledLoader(
            str(beton),
            batch_size=batch_size,
            num_workers=config.workers or len(os.sched_getaffinity(0)),
            order=self.order,
            indices=index,
            drop_last=True,
            batches_ahead=config.batches_ahead,
            pipelines={
                "image": None,
                "index": [IntDecoder()],
                "pair": PipelineSpec("image", decoder=TwoCrops(config.image_size, views), transforms=[]),
            },
        )
        torch.set_num_threads(threads)  # FFCV sets torch's threads to its own number
        self.allocate, self.loader.graph.allocate_memory = self.loader.graph.allocate_memory, self.allocate_with_key

    def allocate_with_key(self, batch_size: int, batches_ahead: int) -> Any:
        memory = self.allocate(batch_size, batches_ahead)
        for buffers in memory["operation"].values():
            if isinstance(buffers, tuple):  # TwoCrops' own: destination, scratch, key
                buffers[2][...] = self.key
        return memory

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        self.loader.next_epoch = epoch
        self.order.start = start_step * self.batch_size
        self.key = epoch_key(self.seed, epoch).astype(np.int64)
        threads = torch.get_num_threads()
        batches = iter(self.loader)
        torch.set_num_threads(threads)
        for index, pair in batches:
            pairs = torch.as_tensor(pair)
            yield Crops(pairs[:, 0], pairs[:, 1], torch.as_tensor(index).view(-1).clone())


class WebDatasetPairs:
    """Pairs from tar shards, streamed: shards in a drawn order, images through a shuffle buffer, decoded in threads."""

    def __init__(
        self,
        config: DataConfig,
        views: ViewsConfig,
        shards: list[Path],
        index_of: dict[str, int],
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.steps_per_epoch = steps(len(index_of), batch_size, world_size)
        self.config, self.views, self.shards, self.index_of = config, views, shards, index_of
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size

    def samples(self, epoch: int) -> Iterator[tuple[int, bytes]]:
        """(index, image bytes) of this rank's images, shuffled by (seed, epoch)."""
        generator = random.Random(f"{self.seed}/{epoch}")
        shards = [str(shard) for shard in self.shards]
        generator.shuffle(shards)
        stream = webdataset.DataPipeline(
            webdataset.SimpleShardList(shards),
            webdataset.tarfile_to_samples(),
            webdataset.shuffle(
                self.config.shuffle_buffer, initial=self.config.shuffle_buffer, rng=generator
            ),
        )
        place = 0
        for sample in stream:
            index = self.index_of.get(sample["__key__"])
            if index is None:
                continue  # set aside by validation
            if place % self.world_size == self.rank:
                suffix = next(suffix for suffix in IMAGE_SUFFIXES if suffix in sample)
                yield index, sample[suffix]
            place += 1

    def pair(self, key: np.uint64, index: int, content: bytes) -> NDArray[np.uint8]:
        """Both crops of one image: (2, size, size, 3)."""
        image = decode(content)
        size = self.config.image_size
        crops = np.empty((2, size, size, 3), dtype=np.uint8)
        for view in range(2):
            top, left, height, width = crop_box(
                key, index, view, image.shape[0], image.shape[1], self.views.crop_scale, self.views.crop_ratio
            )
            crops[view] = resize(image[top : top + height, left : left + width], size)
        return crops

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        key = epoch_key(self.seed, epoch)
        workers = self.config.workers or len(os.sched_getaffinity(0))
        ahead = self.batch_size * self.config.batches_ahead
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[tuple[int, Future[NDArray[np.uint8]]]] = deque()
            samples = self.samples(epoch)
            for _ in range(start_step * self.batch_size):
                next(samples)
            for _ in range(start_step, self.steps_per_epoch):
                while len(waiting) < ahead:
                    sample = next(samples, None)
                    if sample is None:
                        break
                    waiting.append((sample[0], pool.submit(self.pair, key, *sample)))
                batch = [waiting.popleft() for _ in range(self.batch_size)]
                pairs = torch.from_numpy(np.stack([pair.result() for _, pair in batch]))
                yield Crops(pairs[:, 0], pairs[:, 1], torch.tensor([index for index, _ in batch]))
            for _, pair in waiting:
                pair.cancel()


def build(
    config: DataConfig,
    views: ViewsConfig,
    *,
    manifest: pd.DataFrame,
    beton: Path,
    shards: Path,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """The loader that `config.loader` names, over the rows of `manifest` (one split, less what was set aside).

    `beton` is the split's beton, `shards` the folder of tar shards; only the one that is needed must exist.
    """
    if config.loader == "ffcv":
        index = np.sort(manifest["index"].to_numpy(dtype=np.int64))
        return FFCVPairs(config, views, beton, index, batch_size, seed, rank, world_size)
    names = sorted(manifest["shard"].unique())
    index_of = dict(zip(manifest["key"], manifest["index"].astype(int), strict=True))
    return WebDatasetPairs(
        config, views, [shards / name for name in names], index_of, batch_size, seed, rank, world_size
    )
