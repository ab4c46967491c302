from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing
from support.official import TinyBackbone
from support.toy_training import DEFAULTS, ToyLoader, run

from fra.data.views.config import ViewsConfig
from fra.data.views.views import Crops, Views
from fra.method.networks import FRA, Embeddings, Regions
from fra.train.checkpoint import Checkpoints
from fra.train.config import TrainConfig
from fra.train.interrupt import StopSignal
from fra.train.memory import largest_batch_that_fits
from fra.train.monitoring.collapse import CollapseMonitor, collapse_indicators
from fra.train.monitoring.divergence import has_diverged, update_running_mean
from fra.train.trainer import Trainer


def output(global_BD: torch.Tensor, scores_BKHW: torch.Tensor | None = None) -> Embeddings:
    none = torch.zeros(0)
    return Embeddings(global_BD, None if scores_BKHW is None else Regions(none, scores_BKHW, none, none))


def test_embedding_std_is_1_for_uniform_embeddings_and_0_for_equal_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = collapse_indicators(output(torch.randn(2000, 64, generator=generator)), 0.1)
    assert spread[0].item() == pytest.approx(1, abs=0.02)
    assert collapse_indicators(output(torch.ones(8, 64)), 0.1)[0].item() == pytest.approx(0, abs=1e-6)
    assert spread[1:].tolist() == [0, 1]


def test_mask_indicators_of_even_certain_and_single_mask_assignments() -> None:
    embeddings = torch.eye(4)
    even = collapse_indicators(output(embeddings, torch.zeros(4, 3, 2, 2)), 0.1)
    assert even[1].item() == pytest.approx(1)
    assert even[2].item() == pytest.approx(3)
    one = torch.full((4, 3, 2, 2), -1.0)
    one[:, 0] = 1
    taken_over = collapse_indicators(output(embeddings, one), 0.05)
    assert taken_over[1].item() == pytest.approx(0, abs=1e-6)
    assert taken_over[2].item() == pytest.approx(1)
    each = torch.eye(4)[:, :, None, None].expand(4, 4, 2, 2) * 2 - 1
    certain_but_shared = collapse_indicators(output(embeddings, each), 0.05)
    assert certain_but_shared[1].item() == pytest.approx(0, abs=1e-6)
    assert certain_but_shared[2].item() == pytest.approx(4)


def test_lasting_collapse_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    monitor = CollapseMonitor(patience=3)
    for step, masks in enumerate((1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0)):
        monitor.update({"step": step, "embedding_std": 0.5, "masks_used": masks}, regional=True)
    assert caplog.text.count("seem to collapse") == 1
    assert "masks_used has been below 1.05" in caplog.text
    assert "step 5" in caplog.text
    monitor = CollapseMonitor(patience=3)
    for step in range(4):
        monitor.update({"step": step, "embedding_std": 0.5, "masks_used": 1.0}, regional=False)
    assert caplog.text.count("seem to collapse") == 1


def test_divergence_is_a_loss_not_finite_or_far_above_the_mean() -> None:
    mean = None
    for loss in (4.0, 3.0, 12.0):
        assert not has_diverged(loss, mean, max_ratio=10)
        mean = update_running_mean(mean, loss)
    assert mean == pytest.approx(0.98 * (0.98 * 4 + 0.02 * 3) + 0.02 * 12)
    for loss in (50, math.nan, math.inf):
        assert has_diverged(loss, mean, max_ratio=10)
    assert not has_diverged(4.0, mean, max_ratio=10)
    assert has_diverged(math.nan, None, max_ratio=10)
    assert not has_diverged(1e9, None, max_ratio=10)


def test_the_first_stop_signal_is_recorded_and_the_second_has_its_usual_effect() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before


def test_the_largest_batch_that_fits_is_found_by_halving() -> None:
    def trial(count: int) -> None:
        if count > 20:
            raise MemoryError

    def broken(count: int) -> None:
        raise RuntimeError("something else")

    assert largest_batch_that_fits(trial, 96) == 12
    assert largest_batch_that_fits(lambda count: trial(count + 100), 96) is None
    with pytest.raises(RuntimeError, match="something else"):
        largest_batch_that_fits(broken, 96)


class Greedy(TinyBackbone):
    """Allocates more memory than any machine has (1 PiB) for a batch of more than `limit` images."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.limit:
            torch.empty(2**50, dtype=torch.uint8)
        return super().forward(images)


@pytest.mark.parametrize(
    ("limit", "advice"),
    [
        (10, "with 32 images at once: 8 fit, so set train.batch_size to 8, or train.accumulation_steps to 4"),
        (1, "with two images: use a smaller"),
    ],
)
def test_out_of_memory_names_a_batch_size_that_fits(limit: int, advice: str, tmp_path: Path) -> None:
    model = FRA(Greedy(limit), feature_dim=32, num_masks=3, hidden_dim=32, projection_dim=16)
    config = TrainConfig(**{**DEFAULTS, "batch_size": 32})
    views = Views(ViewsConfig(), seed=0)
    training = Trainer(model, config, ToyLoader(32), views, Checkpoints(tmp_path), {}, ())
    with StopSignal() as stop, pytest.raises(MemoryError, match=advice):
        training.train(stop)


class GreedyViews(Views):
    """Allocates more memory than any machine has for its views."""

    def __call__(self, crops: Crops, epoch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(2**50, device=device), torch.empty(2**50, device=device)


def test_out_of_memory_while_making_views_names_the_parameters(tmp_path: Path) -> None:
    advice = "out of memory on cpu while views of 8 images were made: use a smaller train.batch_size or data"
    with pytest.raises(MemoryError, match=advice):
        run(tmp_path, views=GreedyViews(ViewsConfig(), seed=0))


def out_of_memory(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        model = FRA(Greedy(10), feature_dim=32, num_masks=3, hidden_dim=32, projection_dim=16)
        config = TrainConfig(**{**DEFAULTS, "batch_size": 32})
        views = Views(ViewsConfig(), seed=0)
        training = Trainer(model, config, ToyLoader(32), views, Checkpoints(folder), {}, ())
        advice = r"with 16 images at once: halve train.batch_size, or double train.accumulation_steps \(1\)"
        with StopSignal() as stop, pytest.raises(MemoryError, match=advice):
            training.train(stop)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_out_of_memory_on_two_ranks_names_the_parameters(tmp_path: Path) -> None:
    """No rank can try alone which batch fits, as batch statistics are shared."""
    multiprocessing.spawn(out_of_memory, (tmp_path,), nprocs=2)
