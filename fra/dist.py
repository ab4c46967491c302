"""Process groups, and collectives whose gradient is that of the whole batch.

With R ranks, each computing its own loss on its share of a batch, the loss of the whole batch is the mean of
the R losses, and DistributedDataParallel averages the R gradients. A quantity that every rank's loss depends
on, such as a mean over the whole batch, must therefore pass back the *sum* of what all ranks send to it: an
in-place all-reduce (as in the official code) drops the other ranks' part of the gradient.
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
    """Returns True if this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Returns the number of this process in the group; 0 without a group."""
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    """Returns the number of ranks; 1 without a group."""
    return dist.get_world_size() if is_active() else 1


def is_local_rank_zero() -> bool:
    """Returns True on the first rank of each machine, and in a process that torchrun did not start."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class _Sum(torch.autograd.Function):
    """All-reduce: y = Σ_r x_r on every rank; backward: dx = Σ_r dy_r."""

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
    """Returns the sum of `x` over all ranks, differentiable; `x` itself with one rank."""
    return x if world_size() == 1 else _Sum.apply(x)


def mean_over_ranks(x: Tensor) -> Tensor:
    """Returns the mean of `x` over all ranks, differentiable; `x` itself with one rank."""
    return x if world_size() == 1 else sum_over_ranks(x) / world_size()


def gather_rows(x: Tensor) -> Tensor:
    """Returns the rows of `x` of every rank in rank order, (ranks · N, ...); equal shapes, no gradient."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def broadcast(x: Tensor) -> Tensor:
    """Overwrites `x` on every rank with that of rank 0 and returns it."""
    if world_size() > 1:
        dist.broadcast(x, 0)
    return x


class PortableSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batch of all ranks on any device; PyTorch's SyncBatchNorm needs a GPU.

    Mean and variance take one differentiable all-reduce each. The variance is computed from centred values, which
    avoids cancellation. Ranks may hold different numbers of samples.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (N, C, ...) with the statistics of all ranks in training, the running ones in eval mode."""
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
    """Replaces every batch norm of `module` by a synchronised one and returns the module.

    On a GPU by PyTorch's SyncBatchNorm, elsewhere by `PortableSyncBatchNorm`; names of parameters and buffers stay.
    With one rank nothing changes.
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
def process_group(device: str = "auto") -> Iterator[torch.device]:
    """Joins the process group that torchrun started, if any, and leaves it at the end; yields this rank's device.

    Ranks on GPUs communicate through NCCL, on CPUs through gloo. If torchrun dies, its ranks get SIGTERM.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:<n>".

    Raises:
        RuntimeError: torchrun would restart ranks in a way in which they cannot find each other.
    """
    chosen = choose_device(device, "train.device")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # the default of calls that name no device
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or is_active():
        yield chosen
        return
    _check_restarts()
    _terminate_with_parent()
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def _check_restarts() -> None:
    """Raises RuntimeError for restarts by torchrun that reuse the rendezvous store with addresses of dead ranks."""
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise RuntimeError(
            "torchrun --max-restarts: restarted ranks would connect to the addresses of dead ones: start it with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )


def _terminate_with_parent() -> None:
    """Has Linux send SIGTERM to this process when its parent ends."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def choose_device(name: str, setting: str = "device") -> torch.device:
    """Returns the device of this rank; "auto" and "cuda" select the GPU with the rank's number on its machine.

    Args:
        name: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:<n>".
        setting: The parameter or option that the name comes from, for messages.

    Raises:
        ValueError: The name is none of these.
        RuntimeError: A GPU is requested and PyTorch finds none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    of_rank = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(of_rank if name in ("auto", "cuda") else name)
    except RuntimeError as error:
        raise ValueError(f"{setting} is {name!r}: use auto, cpu, cuda or cuda:<n>") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"{setting} is {name!r}, but PyTorch finds no GPU: use auto or cpu")
    return device


class CpuCollectives:
    """Collectives of a few numbers on the CPU (gloo), so that a decision never waits for a GPU.

    Every rank must call the same methods in the same order. With one rank they return their argument.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world_size() > 1 else None

    def any(self, flag: bool) -> bool:
        """Returns True on every rank if `flag` is true on at least one."""
        return self._reduce([float(flag)], dist.ReduceOp.MAX)[0] > 0

    def earliest(self, step: int | None) -> int | None:
        """Returns the smallest step that a rank passes; None if all pass None."""
        found = self._reduce([math.inf if step is None else float(step)], dist.ReduceOp.MIN)[0]
        return None if math.isinf(found) else int(found)

    def mean(self, values: list[float]) -> list[float]:
        """Returns the mean over the ranks of each value."""
        return [total / world_size() for total in self._reduce(values, dist.ReduceOp.SUM)]

    def broadcast(self, value: float) -> float:
        """Returns the value of rank 0 on every rank."""
        return self._reduce([value if rank() == 0 else 0.0], dist.ReduceOp.SUM)[0]

    def barrier(self) -> None:
        """Returns once every rank has called it."""
        self.any(False)

    def _reduce(self, values: list[float], operation: Any) -> list[float]:
        if self._group is None:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation, group=self._group)
        return tensor.tolist()
