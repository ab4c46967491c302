"""Two ranks with half the batch each do what one rank does with the whole, to float64's last digits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from fra import dist
from fra.method import losses
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import build
from fra.train import optim
from fra.train.mask_init import init_masks_from_clusters
from fra.train.prefetch import Batch
from fra.train.step import TrainStep

BATCH = 32
SIZE = 16
TOLERANCE = 1e-9
SETTINGS = ((1, 3, 0), (2, 3, 0), (1, 1, 0), (1, 3, 1), (2, 3, 2))
"""Micro-batches, masks, and the step from which regions are seen."""


class Result(NamedTuple):
    losses: Tensor
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


def views(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    shape = (BATCH, 3, SIZE, SIZE)
    return (
        torch.randn(shape, generator=generator, dtype=torch.float64),
        torch.randn(shape, generator=generator, dtype=torch.float64),
    )


def share(batch: Tensor, accumulation_steps: int) -> Tensor:
    """A rank's part of a batch: its part of each micro-batch, so that micro-batches hold the same images."""
    ranks = dist.world_size()
    return torch.cat([micro.chunk(ranks)[dist.rank()] for micro in batch.chunk(accumulation_steps)])


def train(accumulation_steps: int, num_masks: int, region_start: int) -> Result:
    """Gradients of the first step, then what three steps of LARS make of the weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(ModelConfig("small", num_masks, 16, 24, dropout=0.0), ObjectiveConfig()).double()
    train_step = TrainStep(model, torch.device("cpu"), accumulation_steps=accumulation_steps)
    lars = optim.lars(model.trained_parameters(), 0.5, 0.9, 1e-4, 1e-3)
    results = []
    gradients: dict[str, Tensor] = {}
    for step in range(3):
        pair = [share(view, accumulation_steps) for view in views(step)]
        results.append(train_step(*pair, lars, 0.5, 0.99, 0.9, step >= region_start).losses)
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in model.trained_parameters() if p.grad is not None}
    return Result(dist.mean_over_ranks(torch.stack(results)), gradients, dict(model.state_dict()))


def largest_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp_min(1e-6))
        for name in theirs
    )


def on_two_ranks(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        sums_and_means()
        batch_norm()
        sinkhorn(folder)
        cpu_collectives()
        gathering()
        assert largest_error(aimed(), torch.load(folder / "aimed.pt", weights_only=True)) < TOLERANCE
        for setting in SETTINGS:
            whole = Result(*torch.load(folder / f"{setting}.pt", weights_only=True))
            ours = train(*setting)
            torch.testing.assert_close(ours.losses, whole.losses, rtol=TOLERANCE, atol=0)
            assert largest_error(ours.gradients, whole.gradients) < TOLERANCE
            assert largest_error(ours.weights, whole.weights) < TOLERANCE
    finally:
        torch.distributed.destroy_process_group()


def sums_and_means() -> None:
    x = torch.tensor([1.0, 2.0]) * (dist.rank() + 1)
    x.requires_grad_()
    total, mean = dist.sum_over_ranks(x), dist.mean_over_ranks(x)
    assert total.tolist() == [3, 6]
    assert mean.tolist() == [1.5, 3]
    # Rank r's loss is (r + 1) · Σ mean². Every rank gets the gradient of both: Σ_r (r + 1) · 2 · mean / 2.
    ((dist.rank() + 1) * mean.square().sum()).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3 * 1.5, 3 * 3]
    assert x.tolist() == [dist.rank() + 1, 2 * (dist.rank() + 1)]


def batch_norm() -> None:
    """The same output, gradient and running statistics as torch's over both shares, of unequal sizes."""
    x = torch.randn(5, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 2
    plain = nn.BatchNorm2d(4).double()
    whole = x.clone().requires_grad_()
    plain(whole).sin().sum().backward()
    rows = slice(0, 2) if dist.rank() == 0 else slice(2, 5)
    ours = dist.synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(4).double()), torch.device("cpu"))[0]
    part = x[rows].clone().requires_grad_()
    ours(part).sin().sum().backward()
    close = {"rtol": TOLERANCE, "atol": TOLERANCE}
    torch.testing.assert_close(ours(part), plain(whole)[rows], **close)
    torch.testing.assert_close(part.grad, whole.grad[rows], **close)
    torch.testing.assert_close(dist.sum_over_ranks(ours.weight.grad), plain.weight.grad, **close)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, **close)
    ours.eval(), plain.eval()
    torch.testing.assert_close(ours(part), plain(whole)[rows], **close)


def sinkhorn(folder: Path) -> None:
    ours = losses.sinkhorn(probabilities().chunk(2)[dist.rank()])
    torch.testing.assert_close(
        ours, torch.load(folder / "sinkhorn.pt", weights_only=True).chunk(2)[dist.rank()]
    )


def probabilities() -> Tensor:
    return torch.rand(10, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def cpu_collectives() -> None:
    collectives = dist.CpuCollectives()
    assert collectives.any(dist.rank() == 1)
    assert not collectives.any(False)
    assert collectives.earliest(7 if dist.rank() == 0 else 4) == 4
    assert collectives.earliest(7 if dist.rank() == 0 else None) == 7
    assert collectives.earliest(None) is None
    collectives.barrier()
    assert collectives.mean([1.0 + dist.rank(), 5.0]) == [1.5, 5.0]
    assert collectives.broadcast(0.7 + dist.rank()) == 0.7


def gathering() -> None:
    mine = torch.full((2, 1), float(dist.rank()))
    assert dist.gather_rows(mine).ravel().tolist() == [0, 0, 1, 1]
    assert dist.broadcast(mine).ravel().tolist() == [0, 0]


def aimed() -> dict[str, Tensor]:
    """Weights of a model whose masks begin at clusters, of images that come in another order on two ranks."""
    torch.manual_seed(0)
    model = build(ModelConfig("small", 3, 16, 24, dropout=0.0), ObjectiveConfig()).double()
    dist.synchronise_batch_norm(model, torch.device("cpu"))
    index = torch.randperm(BATCH, generator=torch.Generator().manual_seed(3))
    feed = [Batch(share(index, 1), *(share(view[index], 1) for view in views(step))) for step in range(2)]
    init_masks_from_clusters(model, feed, seed=0)
    return dict(model.state_dict())


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(aimed(), tmp_path / "aimed.pt")
    for setting in SETTINGS:
        torch.save(tuple(train(*setting)), tmp_path / f"{setting}.pt")
    torch.save(losses.sinkhorn(probabilities()), tmp_path / "sinkhorn.pt")
    multiprocessing.spawn(on_two_ranks, (tmp_path,), nprocs=2)
    assert "arning" not in capfd.readouterr().err  # torch's own, of gradients it looked for in vain


def test_one_rank_needs_no_group() -> None:
    x = torch.ones(2, requires_grad=True)
    assert dist.sum_over_ranks(x) is x
    assert dist.mean_over_ranks(x) is x
    assert (dist.rank(), dist.world_size()) == (0, 1)
    norm = nn.BatchNorm1d(2)
    assert type(dist.synchronise_batch_norm(norm, torch.device("cpu"))) is nn.BatchNorm1d
    assert dist.CpuCollectives().mean([2.0]) == [2.0]


def test_restarts_that_would_hang_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WORLD_SIZE": "2",
        "TORCHELASTIC_MAX_RESTARTS": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"), dist.process_group("cpu"):
        pass


def test_local_rank_zero_is_the_first_of_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dist.is_local_rank_zero()
    for local, first in (("0", True), ("1", False), ("10", False)):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert dist.is_local_rank_zero() == first


def test_devices_are_chosen_or_refused() -> None:
    assert dist.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"train\.device is 'gpu': use auto, cpu, cuda or"):
        dist.choose_device("gpu", "train.device")
    if not torch.cuda.is_available():
        assert dist.choose_device("auto") == torch.device("cpu")
        with pytest.raises(RuntimeError, match="finds no GPU"):
            dist.choose_device("cuda")
