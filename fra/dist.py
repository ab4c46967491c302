"""Ranks, and sums and means over them that carry the right gradient.

With R ranks, each computing its own loss on its share of a batch, the loss of the whole batch is the mean of
the R losses, and DistributedDataParallel averages the R gradients. A quantity that every rank's loss depends
on, such as a mean over the whole batch, must therefore pass back the *sum* of what all ranks send to it: an
in-place all-reduce (as in the official code) drops the other ranks' part.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_active() -> bool:
    """True where this process belongs to a group of ranks."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    return dist.get_world_size() if is_active() else 1


def first_of_machine() -> bool:
    """True on the first of the ranks that torchrun started on this machine, and where it started none."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class _Sum(torch.autograd.Function):
    """y = Σ_r x_r on every rank; backward: dx = Σ_r dy_r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of `x` over all ranks, differentiable; `x` itself where there is one rank."""
    return x if world_size() == 1 else _Sum.apply(x)


def mean_over_ranks(x: Tensor) -> Tensor:
    """Mean of `x` over all ranks, differentiable; `x` itself where there is one rank."""
    return x if world_size() == 1 else sum_over_ranks(x) / world_size()


def rows_of_all_ranks(x: Tensor) -> Tensor:
    """The rows of every rank's `x` (all of one shape), one rank after the other; no gradient."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def of_first_rank(x: Tensor) -> Tensor:
    """Rank 0's `x`, in place, on every rank."""
    if world_size() > 1:
        dist.broadcast(x, 0)
    return x


class PortableSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the whole batch of all ranks, on any device (torch's own needs a GPU).

    Mean and variance take one all-reduce each (two passes: no cancellation), both differentiable. Every rank
    may hold a different number of samples.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        axes = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        count = sum_over_ranks(torch.tensor(float(x.numel() // x.shape[1]), dtype=x.dtype, device=x.device))
        mean_C = sum_over_ranks(x.sum(axes)) / count
        centred = x - mean_C.view(shape)
        var_C = sum_over_ranks(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
                self.running_var.lerp_((var_C * count / (count - 1)).to(self.running_var.dtype), share)
        y = centred * torch.rsqrt(var_C + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of `module` by one that spans all ranks (same parameter and buffer names).

    On a GPU torch's fused SyncBatchNorm, elsewhere `PortableSyncBatchNorm`. Nothing changes where there is
    one rank.
    """
    if world_size() == 1:
        return module
    if device.type == "cuda":
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(module))  # type: ignore[no-untyped-call]
    for child in module.modules():
        if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            child.__class__ = PortableSyncBatchNorm
    return module


@contextmanager
def ranks(device: str = "auto") -> Iterator[torch.device]:
    """Join the ranks that torchrun started, if it did, and leave them at the end; yields this rank's device.

    `device` is "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:<n>". Ranks on GPUs talk through
    NCCL, on CPUs through gloo. A rank whose torchrun dies gets SIGTERM, instead of running on alone.

    Raises RuntimeError where torchrun would start ranks again that cannot find each other.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # for all who name none
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or is_active():
        yield chosen
        return
    _check_restarts()
    _end_with_parent()
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def _check_restarts() -> None:
    """torchrun keeps the store in which ranks look each other up over a restart, with the addresses of the dead."""
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise RuntimeError(
            "torchrun --max-restarts: ranks that start again would look for the dead ones: start it with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one ends."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def choose_device(name: str) -> torch.device:
    """The device of this rank: "auto" and "cuda" take the GPU of the rank's number on its machine.

    Raises ValueError for an unknown name and RuntimeError where no GPU is found for "cuda".
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name in ("auto", "cuda"):
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"train.device is {name!r}: use auto, cpu, cuda or cuda:<n>") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"train.device is {name!r}, but torch finds no GPU: use auto or cpu")
    return device


class Agreement:
    """Decisions that all ranks take together, over the CPU, so that no GPU is waited for."""

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world_size() > 1 else None

    def any(self, flag: bool) -> bool:
        """True everywhere if true on any rank."""
        return self._reduce([float(flag)], dist.ReduceOp.MAX)[0] > 0

    def earliest(self, step: int | None) -> int | None:
        """The smallest of the ranks' steps; None where no rank names one."""
        found = self._reduce([math.inf if step is None else float(step)], dist.ReduceOp.MIN)[0]
        return None if math.isinf(found) else int(found)

    def mean(self, values: list[float]) -> list[float]:
        """Mean over the ranks of each value."""
        return [total / world_size() for total in self._reduce(values, dist.ReduceOp.SUM)]

    def of_first(self, value: float) -> float:
        """The value of rank 0, everywhere."""
        return self._reduce([value if rank() == 0 else 0.0], dist.ReduceOp.SUM)[0]

    def wait(self) -> None:
        """Return once every rank has come here."""
        self.any(False)

    def _reduce(self, values: list[float], operation: Any) -> list[float]:
        if self._group is None:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation, group=self._group)
        return tensor.tolist()
