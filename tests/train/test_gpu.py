"""Tests that need a real GPU; skipped without one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.toy_training import MODEL, ToyLoader, run

from fra.bench.training.plain_step import RECIPE
from fra.data.loader.memory import MemoryPairs
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import build
from fra.train import optim
from fra.train.memory import free_memory
from fra.train.prefetch import prefetch
from fra.train.step import AsyncCopy, TrainStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
VIEWS = Views(ViewsConfig(), seed=0)


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error where torch waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_views_equal_those_of_the_cpu_when_used_late() -> None:
    """The GPU is busy when each batch comes, and uses it when the next ones are made: none may get its memory."""
    ours = []
    for batch in prefetch(ToyLoader(8), VIEWS, 0, 0, GPU):
        torch.cuda._sleep(100_000_000)  # cycles, before the copies below are made
        ours.append((batch.view1_B3HW + 0, batch.view2_B3HW + 0))
        del batch
    for pair, batch in zip(ours, prefetch(ToyLoader(8), VIEWS, 0, 0, CPU), strict=True):
        for view, expected in zip(pair, (batch.view1_B3HW, batch.view2_B3HW), strict=True):
            far = (view.cpu() - expected).abs() > 1e-4
            assert (
                far.float().mean() < 1e-3
            )  # a pixel at the threshold of solarising may fall on its other side


def test_making_views_never_waits_for_the_gpu() -> None:
    crops = next(ToyLoader(8).epoch(0))
    with no_waiting():
        assert VIEWS(crops, 0, GPU)[0].device == GPU


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_never_waits_for_the_gpu(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    train_step = TrainStep(build(MODEL, ObjectiveConfig()), GPU, precision)
    lars = optim.lars(train_step.model.trained_parameters(), **RECIPE)
    view1, view2 = (torch.randn(8, 3, 32, 32, device=GPU) for _ in range(2))
    train_step(view1, view2, lars, 0.1, 0.99, 0.9)  # copies to the GPU what it needs once
    with no_waiting():
        losses = AsyncCopy(train_step(view1, view2, lars, 0.1, 0.99, 0.9).losses)
    assert all(math.isfinite(loss) for loss in losses.read())


def test_training_equals_that_of_the_cpu(tmp_path: Path) -> None:
    """To the rounding of TF32, and without dropout, whose draws differ between devices."""
    model = ModelConfig("small", num_masks=3, projection_dim=16, hidden_dim=32, dropout=0.0)
    ours, theirs = (
        run(tmp_path / device, device=device, epochs=1, model=model, precision="float32")
        for device in ("cuda", "cpu")
    )
    assert ours["total"] == pytest.approx(theirs["total"], rel=1e-2)


@pytest.mark.parametrize(
    ("megabytes", "advice"), [(1000, "fit, so set train"), (150, "while views of 4096 images were made")]
)
def test_out_of_memory_names_a_remedy(megabytes: int, advice: str, tmp_path: Path) -> None:
    memory = torch.cuda.get_device_properties(GPU).total_memory
    free_memory(GPU)
    torch.cuda.set_per_process_memory_fraction(megabytes * 1e6 / memory)
    try:
        with pytest.raises(MemoryError, match=advice):
            run(tmp_path, ToyLoader(4096, images=4096), batch_size=4096, epochs=1, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_crops_in_memory_equal_those_of_the_cpu() -> None:
    faces = torch.randint(256, (16, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        next(MemoryPairs(faces.to(device), 64, ViewsConfig(), 16, seed=0).epoch(0)) for device in (GPU, CPU)
    )
    assert (ours.first_BHWC.cpu().int() - theirs.first_BHWC.int()).abs().max() <= 1
    assert torch.equal(ours.index_B, theirs.index_B)
