"""One optimiser step: both directions of the objective, the update, the target and the prototypes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fra import dist
from fra.method.networks import FRA, Direction, Embeddings
from fra.train.config import PRECISIONS

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """Of one step, on the device: losses (4,) = total, global, region, relation of this rank's images; what
    the online network saw in the last micro-batch's second view."""

    losses: Tensor
    seen: Embeddings


class Late:
    """A tensor on its way to the CPU: to read it waits for it, and for nothing that the device is told from now on."""

    def __init__(self, x: Tensor) -> None:
        self._here = x.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if x.device.type == "cuda":
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> list[float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._here.tolist()
        return values


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; "auto" takes bfloat16 on hardware that multiplies it.

    Only backbone and MLPs run in bfloat16; weights, scores and losses stay float32. Raises ValueError for an
    unknown name.
    """
    if name not in PRECISIONS:
        raise ValueError(f"train.precision is {name!r}: use {', '.join(PRECISIONS)}")
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


class Trainer:
    """The networks on their device, ready to be stepped, by one rank or many.

    `accumulation_steps` splits each batch into that many micro-batches and takes one step from their mean gradient.
    Batch-norm statistics, the mean mask embedding and Sinkhorn's sums are then those of a micro-batch (over
    all ranks).
    """

    def __init__(
        self,
        model: FRA,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        accumulation_steps: int = 1,
        compiled: bool = False,
    ) -> None:
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all steps have the same shapes
        model.to(device)
        for parameter in model.parameters():
            if parameter.ndim == 4:
                # not .contiguous(): it leaves the strides of 1×1 convolutions as they are, unlike their
                # gradients'
                like = torch.empty_like(parameter.data, memory_format=torch.channels_last)
                parameter.data = like.copy_(parameter.data)
        dist.synchronise_batch_norm(model, device)
        if compiled:
            _compile(model)
        self.model = model.train()
        self.device = device
        self.precision = precision
        self.accumulation_steps = accumulation_steps
        self._parallel: DistributedDataParallel | None = None
        self._parallel_regional = False

    def step(
        self,
        view1_B3HW: Tensor,
        view2_B3HW: Tensor,
        optimizer: Optimizer,
        lr: float,
        target_momentum: float,
        prototype_momentum: float,
        regional: bool = True,
    ) -> Outcome:
        """Train on one batch (this rank's share), `regional` or at image level. Nothing is read back."""
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        outcome, online_masks, target_masks = self.backward(view1_B3HW, view2_B3HW, regional)
        optimizer.step()
        self.model.update_target(target_momentum)
        self.model.update_prototypes(online_masks, target_masks, prototype_momentum)
        return outcome

    def backward(
        self, view1_B3HW: Tensor, view2_B3HW: Tensor, regional: bool = True
    ) -> tuple[Outcome, list[Tensor], list[Tensor]]:
        """Gradients of a batch, without a step; and each view's mean mask embedding (K, D), online and
        target.

        Backward runs on one direction before the other is computed: half the memory of both at once.
        """
        if view1_B3HW.shape[0] % self.accumulation_steps:
            raise ValueError(
                f"{view1_B3HW.shape[0]} images cannot be split into {self.accumulation_steps} equal micro-batches: "
                "set train.accumulation_steps to a divisor of the batch size per rank"
            )
        networks = self._networks(regional)
        losses: list[Tensor] = []
        online: list[Embeddings] = []
        target: list[Embeddings] = []
        chunks = zip(
            view1_B3HW.chunk(self.accumulation_steps), view2_B3HW.chunk(self.accumulation_steps), strict=True
        )
        for number, pair in enumerate(chunks, start=1):
            view1, view2 = (view.contiguous(memory_format=torch.channels_last) for view in pair)
            with self.autocast():
                target1, target2 = (self.model.see_target(view, regional) for view in (view1, view2))
            target += [target1, target2]
            for view, same, other, last in (
                (view1, target1, target2, False),
                (view2, target2, target1, number == self.accumulation_steps),
            ):
                with nullcontext() if last or self._parallel is None else self._parallel.no_sync():
                    with self.autocast():
                        direction: Direction = networks(view, same, other)
                    torch.autograd.backward(direction.total / self.accumulation_steps)
                parts = (direction.total.detach(), direction.global_, direction.region, direction.relation)
                losses.append(torch.stack(parts))
                online.append(direction.online)
        return (
            Outcome(torch.stack(losses).sum(0) / self.accumulation_steps, online[-1]),
            _masks_by_view(online),
            _masks_by_view(target),
        )

    def autocast(self) -> AbstractContextManager[Any]:
        """Within it, backbone and perceptrons run in the trainer's precision."""
        enabled = self.precision == torch.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _networks(self, regional: bool) -> nn.Module:
        """The networks, as ranks share gradients: of all weights, or at image level of those that get one."""
        if dist.world_size() == 1:
            return self.model
        if self._parallel is None or self._parallel_regional != regional:
            self._parallel_regional = regional
            self._parallel = DistributedDataParallel(
                self.model, gradient_as_bucket_view=True, find_unused_parameters=not regional
            )
            # Ranks share their batch statistics, so buffers stay equal. (Set here: torch 2.15 names the argument anew.)
            self._parallel.broadcast_buffers = False
        return self._parallel


def _masks_by_view(seen: Sequence[Embeddings]) -> list[Tensor]:
    """Mean mask embedding (K, D) of view 1 and of view 2, from micro-batches that alternate between the
    two."""
    masks = [embeddings.regions.masks_KD for embeddings in seen if embeddings.regions is not None]
    return [torch.stack(masks[view::2]).mean(0) for view in (0, 1)] if masks else []


def _compile(model: FRA) -> None:
    """Compile both backbones, where nearly all the work is. What cannot be compiled runs as written, with a
    warning."""
    torch._dynamo.config.suppress_errors = True
    model.online.backbone.compile(backend=_inductor_or_eager)
    model.target.backbone.compile(backend=_inductor_or_eager)


def _inductor_or_eager(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """A backend of torch.compile: torch's own, or the graph as it is where that fails (no compiler, say)."""
    try:
        compiled: Callable[..., Any] = torch._dynamo.lookup_backend("inductor")(graph, inputs)
    except Exception as error:  # of many kinds; torch has no common one
        _warn_once(" ".join(str(error).split()))
        return graph.forward
    return compiled


@cache
def _warn_once(reason: str) -> None:
    logger.warning("train.compile: the backbone cannot be compiled and runs as written: %s", reason)
