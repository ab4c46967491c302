"""Batches of crops of images in memory: those of the other loaders."""

from __future__ import annotations

import numpy as np
import torch

from fra.data import images
from fra.data.loader.memory import MemoryPairs, crop
from fra.data.views.config import ViewsConfig
from fra.data.views.crops import crop_box
from fra.data.views.rng import epoch_key

VIEWS = ViewsConfig()
FACES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, 40, 32, 3), dtype=np.uint8))


def test_crops_are_those_of_the_other_loaders() -> None:
    """As `WebDatasetPairs.pair` makes them, to one grey value."""
    for batch in MemoryPairs(FACES, 48, VIEWS, batch_size=5, seed=3).epoch(2):
        for view, crops in enumerate((batch.first_BHWC, batch.second_BHWC)):
            for index, ours in zip(batch.index_B.tolist(), crops.numpy(), strict=True):
                box = crop_box(epoch_key(3, 2), index, view, 40, 32, VIEWS.crop_scale, VIEWS.crop_ratio)
                top, left, height, width = box
                part = FACES[index, top : top + height, left : left + width].numpy()
                assert np.abs(ours.astype(int) - images.resize(part, 48)).max() <= 1


def test_shrunk_crops_average_areas() -> None:
    face = FACES[:1].permute(0, 3, 1, 2).float()
    ours = crop(face, torch.tensor([[2, 3, 33, 27]]), 16)[0].numpy().astype(int)
    assert np.abs(ours - images.resize(FACES[0, 2:35, 3:30].numpy(), 16)).max() <= 1


def test_an_epoch_has_each_image_once_in_a_new_order_and_continues_anywhere() -> None:
    loader = MemoryPairs(FACES, 16, VIEWS, batch_size=2, seed=0)
    first, second = (torch.cat([batch.index_B for batch in loader.epoch(epoch)]) for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    whole, rest = list(loader.epoch(1)), list(loader.epoch(1, 3))
    assert len(rest) == 2
    for ours, expected in zip(rest, whole[3:], strict=True):
        assert all(map(torch.equal, ours, expected))
