"""Batches of two crops per image from an FFCV beton."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from fra.data.ffcv import (
    IMAGE_MODES,
    AllocationQuery,
    Compiler,
    EpochIterator,
    IntDecoder,
    PipelineSpec,
    ResizedCropRGBImageDecoder,
    State,
    TraversalOrder,
    imdecode,
    resize_crop,
)
from fra.data.ffcv import Loader as CompiledLoader
from fra.data.loader.config import DataConfig
from fra.data.loader.protocol import steps
from fra.data.loader.samplers import CHUNK_BYTES, chunk_shuffle, shuffle
from fra.data.views.config import ViewsConfig
from fra.data.views.crops import crop_box
from fra.data.views.rng import epoch_key
from fra.data.views.views import Crops
from fra.parallel import available_cores

logger = logging.getLogger(__name__)

Shuffle = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]
"""Returns the image indices in a drawn order."""


class EpochOrder(TraversalOrder):  # type: ignore[misc]
    """The image indices of one rank in one epoch: its share of an order drawn from (seed, epoch).

    Attributes:
        start: Number of images of the rank to leave out at the start of the epoch; `FFCVPairs.epoch` sets it to resume.
    """

    def __init__(
        self, index: NDArray[np.int64], shuffle: Shuffle, seed: int, rank: int, world_size: int
    ) -> None:
        self.index, self.shuffle, self.seed = index, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.start = 0

    def __call__(self, loader: CompiledLoader) -> EpochOrder:
        """FFCV's hook: it calls its argument `order` with the loader."""
        return self

    def sample_order(self, epoch: int) -> NDArray[np.int64]:
        """This rank's image indices in the order in which it reads them, without the first `start`.

        All ranks have equally many: images that are left over when the order is divided are not read in this epoch.
        """
        order = self.shuffle(self.index, np.random.default_rng((self.seed, epoch)))
        share = len(order) // self.world_size * self.world_size
        return order[self.rank : share : self.world_size][self.start :]


class TwoCrops(ResizedCropRGBImageDecoder):  # type: ignore[misc]
    """Decodes an image once and crops it twice: (2, size, size, 3), with the boxes from `crop_box`.

    The random key of the epoch must reach code that is compiled only once. It is passed in the memory of the operation,
    which FFCV allocates at the start of each epoch (`FFCVPairs` then fills it in).
    """

    def __init__(self, size: int, views: ViewsConfig) -> None:
        super().__init__((size, size))
        self.views = views

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, tuple[AllocationQuery, ...]]:
        """FFCV's hook: the output's shape, and memory for the output, a decoded JPEG and the epoch's key."""
        compressed = bool((self.metadata["mode"] == IMAGE_MODES["jpg"]).any())
        pixels = (
            int(self.metadata["height"].max()) * int(self.metadata["width"].max()) * 3 if compressed else 1
        )
        shape = (2, *self.output_size, 3)
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=np.dtype("<u1"))
        return state, (
            AllocationQuery(shape, np.dtype("<u1")),
            AllocationQuery((pixels,), np.dtype("<u1")),
            AllocationQuery((1,), np.dtype("<i8")),
        )

    @property
    def get_crop_generator(self) -> Callable[..., tuple[int, int, int, int]]:
        """FFCV's hook, unused here as `generate_code` calls `crop_box` itself."""
        return crop_box

    def generate_code(self) -> Callable[..., Any]:
        """FFCV's hook: the function that it compiles and calls with each batch."""
        jpg = IMAGE_MODES["jpg"]
        read = self.memory_read
        parallel_range = Compiler.get_iterator()
        decode_jpg = Compiler.compile(imdecode)
        crop = Compiler.compile(resize_crop)
        scale, ratio = self.views.crop_scale, self.views.crop_ratio

        def decode_and_crop(batch_indices, memory, metadata, storage_state):  # type: ignore[no-untyped-def]
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
                        np.uint64(key[place][0]),
                        np.int64(index),  # type: ignore[arg-type]  # Numba's own integers
                        view,
                        np.int64(height),  # type: ignore[arg-type]
                        np.int64(width),  # type: ignore[arg-type]
                        scale,
                        ratio,
                    )
                    crop(image, i, i + h, j, j + w, destination[place][view])
            return destination[: len(batch_indices)]

        decode_and_crop.is_parallel = True  # type: ignore[attr-defined]
        return decode_and_crop


def shuffle_function(config: DataConfig, beton: Path, images: int) -> Shuffle:
    """The shuffle that `config.order` names; warns where a random order will read a file larger than memory."""
    size = beton.stat().st_size
    if config.order == "chunk_shuffle":
        chunk = max(1, CHUNK_BYTES * images // size)
        return lambda index, generator: chunk_shuffle(index, chunk, config.shuffle_buffer, generator)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > 0.8 * memory:
        logger.warning(
            "%s has %.0f GB, this machine's memory %.0f GB: if reading is slow, set data.order=chunk_shuffle",
            beton,
            size / 1e9,
            memory / 1e9,
        )
    return shuffle


def ffcv_threads(workers: int) -> int:
    """The number of threads with which FFCV decodes: `workers`, or one per core where it is 0.

    Raises:
        ValueError: `workers` is above Numba's limit, whose threads FFCV uses.
    """
    limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # made at import
    if workers > limit:
        raise ValueError(
            f"data.workers is {workers}, but Numba has {limit} threads here: set data.workers to 0 (one per core), or "
            "NUMBA_NUM_THREADS to more"
        )
    return workers or min(limit, available_cores())


class Epoch(EpochIterator):  # type: ignore[misc]
    """FFCV's epoch, but an error in its thread is raised in the reader of the batches, which would otherwise hang."""

    error: BaseException | None = None

    def run(self) -> None:
        """The body of FFCV's thread."""
        try:
            super().run()
        except BaseException as error:
            self.error = error
            self.output_queue.put(None)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except StopIteration:
            if self.error is not None:
                raise RuntimeError(
                    f"{self.loader.fname}: a batch could not be read: {self.error}"
                ) from self.error
            raise


class FFCVPairs:
    """The loader of a beton. FFCV compiles its pipeline once, in the first epoch (some 15 s)."""

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
        self.order = EpochOrder(index, shuffle_function(config, beton, len(index)), seed, rank, world_size)
        self.key = np.int64(0)
        threads = torch.get_num_threads()
        self.loader = CompiledLoader(
            str(beton),
            batch_size=batch_size,
            num_workers=ffcv_threads(config.workers),
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
        self.allocate, self.loader.graph.allocate_memory = (
            self.loader.graph.allocate_memory,
            self.allocate_with_key,
        )

    def allocate_with_key(self, batch_size: int, batches_ahead: int) -> Any:
        """FFCV's allocation of an epoch's memory, with the epoch's key written into it for `TwoCrops`."""
        memory = self.allocate(batch_size, batches_ahead)
        for buffers in memory["operation"].values():
            if isinstance(buffers, tuple):  # those of TwoCrops: destination, scratch, key
                buffers[2][...] = self.key
        return memory

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Crops]:
        """The batches of an epoch from `start_step` on; equal arguments give equal batches."""
        self.order.start = start_step * self.batch_size
        self.key = epoch_key(self.seed, epoch).astype(np.int64)
        batches = Epoch(
            self.loader,
            self.order.sample_order(epoch)[: (self.steps_per_epoch - start_step) * self.batch_size],
        )
        try:
            for index, pair in batches:
                pairs = torch.as_tensor(pair)
                yield Crops(pairs[:, 0], pairs[:, 1], torch.as_tensor(index).view(-1).clone())
        finally:
            batches.terminate_event.set()  # ends the thread, also where the reader stops before the end
