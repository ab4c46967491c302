"""Batches of two crops per image, streamed from WebDataset tar shards."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray

from fra.data.images import decode, resize
from fra.data.loader.config import DataConfig
from fra.data.loader.protocol import steps
from fra.data.loader.shard_index import Shard
from fra.data.views.config import ViewsConfig
from fra.data.views.crops import crop_box
from fra.data.views.rng import epoch_key
from fra.data.views.views import Crops
from fra.parallel import available_cores


def image_of(sample: dict[str, Any]) -> bytes:
    """The image file of a sample: all it holds besides the annotation (`json`) and WebDataset's own `__…__` entries."""
    content: bytes = next(
        value for name, value in sample.items() if name != "json" and not name.startswith("__")
    )
    return content


class WebDatasetPairs:
    """The loader of tar shards: streams them in a drawn order through a shuffle buffer, and decodes in threads."""

    def __init__(
        self,
        config: DataConfig,
        views: ViewsConfig,
        shards: list[Shard],
        exclude: frozenset[int],
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        images = sum(shard.images for shard in shards) - len(exclude)
        self.steps_per_epoch = steps(images, batch_size, world_size)
        self.config, self.views, self.exclude = config, views, exclude
        self.first = {str(shard.path): shard.first for shard in shards}
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size

    def with_index(self, samples: Iterator[dict[str, Any]]) -> Iterator[tuple[int, bytes]]:
        """Index within the split and image bytes of each sample that is not excluded."""
        url, place = "", 0
        for sample in samples:
            place = place + 1 if sample["__url__"] == url else 0
            url = sample["__url__"]
            index = self.first[url] + place
            if index not in self.exclude:
                yield index, image_of(sample)

    def samples(self, epoch: int) -> Iterator[tuple[int, bytes]]:
        """Index and image bytes of this rank's images, shuffled by (seed, epoch)."""
        generator = random.Random(f"{self.seed}/{epoch}")
        shards = list(self.first)
        generator.shuffle(shards)
        buffer = self.config.shuffle_buffer
        stream = webdataset.DataPipeline(
            webdataset.SimpleShardList(shards),
            webdataset.tarfile_to_samples(),
            self.with_index,
            webdataset.shuffle(buffer, initial=buffer, rng=generator),
        )
        return itertools.islice(iter(stream), self.rank, None, self.world_size)

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
        """The batches of an epoch from `start_step` on; equal arguments give equal batches."""
        key = epoch_key(self.seed, epoch)
        workers = self.config.workers or available_cores()
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
