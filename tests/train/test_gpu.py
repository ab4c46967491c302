"""What only a real GPU can show; skipped where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy import MODEL, ToyLoader, run

from fra.data.views import Views, ViewsConfig
from fra.method.networks import ModelConfig, ObjectiveConfig, build
from fra.train import bench, optim
from fra.train.feed import Batch, batches
from fra.train.step import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
VIEWS = Views(ViewsConfig(), seed=0)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """An error where the GPU is waited for."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def epoch(device: torch.device) -> list[Batch]:
    return list(batches(ToyLoader(8), VIEWS, 0, 0, device))


def test_views_are_those_of_the_cpu() -> None:
    """Batches are made while earlier ones are in use: each must keep its own memory."""
    for ours, theirs in zip(epoch(GPU), epoch(CPU), strict=True):
        assert torch.equal(ours.index_B, theirs.index_B)
        for view in ("view1_B3HW", "view2_B3HW"):
            far = (getattr(ours, view).cpu() - getattr(theirs, view)).abs() > 1e-4
            assert (
                far.float().mean() < 1e-3
            )  # a pixel at the threshold of solarising may fall on its other side


def test_making_views_waits_for_nothing(no_waiting: None) -> None:
    crops = next(ToyLoader(8).epoch(0))
    assert VIEWS(crops, 0, GPU)[0].device == GPU


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_waits_for_nothing(precision: torch.dtype, no_waiting: None) -> None:
    torch.manual_seed(0)
    trainer = Trainer(build(MODEL, ObjectiveConfig()), GPU, precision)
    lars = optim.lars(trainer.model.trained_parameters(), **bench.RECIPE)
    view1, view2 = (torch.randn(8, 3, 32, 32, device=GPU) for _ in range(2))
    for _ in range(3):
        outcome = trainer.step(view1, view2, lars, 0.1, 0.99, 0.9)
    torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(loss) for loss in outcome.losses.tolist())


def test_training_is_that_of_the_cpu(tmp_path: Path) -> None:
    """To rounding, in float32 and without dropout, whose draws differ between devices."""
    options = {"epochs": 1, "model": ModelConfig("small", 3, 16, 32, dropout=0.0), "precision": "float32"}
    ours, theirs = (run(tmp_path / device, device=device, **options) for device in ("cuda", "cpu"))
    assert ours["total"] == pytest.approx(theirs["total"], rel=1e-2)


def test_a_batch_too_large_is_told_what_fits(tmp_path: Path) -> None:
    """With memory for some tens of images."""
    torch.cuda.set_per_process_memory_fraction(200e6 / torch.cuda.get_device_properties(GPU).total_memory)
    try:
        with pytest.raises(MemoryError, match="so set train"):
            run(tmp_path, loader=ToyLoader(4096, images=4096), batch_size=4096, epochs=1, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
