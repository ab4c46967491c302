"""One optimiser step: gradients of both directions, the update, the target network and the prototypes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fra import dist
from fra.method.backbone import accepted_sizes, build, checkpoint_gradients, on_meta
from fra.method.networks import FRA, Direction, Embeddings
from fra.train.config import Precision
from fra.train.memory import is_out_of_memory, keep_freed_memory
from fra.train.optim import layer_scales, set_lr

logger = logging.getLogger(__name__)


LOSSES = ("total", "global", "region", "relation")
"""Names of the losses of a step, in the order of `StepOutput.losses`."""


class StepOutput(NamedTuple):
    """Results of one step, on the device.

    Attributes:
        losses: (4,): mean losses of this rank's images, in the order of `LOSSES`.
        embeddings: Output of the online network for view 2 of the last micro-batch, without gradient.
    """

    losses: Tensor
    embeddings: Embeddings


class AsyncCopy:
    """A copy of a tensor to the CPU that runs in the background.

    Reading waits for this copy only, not for work that the device got later.
    """

    def __init__(self, x: Tensor) -> None:
        self._copy = x.to("cpu", non_blocking=True)
        self._finished: torch.cuda.Event | None = None
        if x.device.type == "cuda":
            self._finished = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._finished.record()

    def read(self) -> list[float]:
        """Returns the values once the copy has finished."""
        if self._finished is not None:
            self._finished.synchronize()
        values: list[float] = self._copy.tolist()
        return values


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Returns float32 or bfloat16; "auto" is bfloat16 on hardware that multiplies it natively.

    Only backbone and MLPs run in bfloat16; weights, scores and losses stay float32.

    Raises:
        ValueError: The name is none of `Precision`.
    """
    if name not in get_args(Precision):
        raise ValueError(f"train.precision is {name!r}: use {', '.join(get_args(Precision))}")
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def check_image_size(backbone: nn.Module, name: str, size: int, device: torch.device) -> None:
    """Raises ValueError if a backbone cannot process images of `size`×`size` pixels, MemoryError if two do not fit.

    Many timm models have a fixed size or need a multiple of a patch size, and fail with errors of many kinds. Weights,
    batch statistics and random state stay unchanged.

    Args:
        backbone: The backbone, on `device`.
        name: Value of model.backbone, for the message.
        size: Value of data.image_size.
        device: Where to try.
    """
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            backbone(torch.zeros(2, 3, size, size, device=device))
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(
                f"out of memory on {device} with two images: use a smaller model.backbone or data.image_size"
            ) from error
        empty = on_meta(name) if name.startswith("timm:") else None
        sizes = [] if empty is None else accepted_sizes(empty)
        accepted = f"one of {', '.join(map(str, sizes))}" if sizes else "a size that it accepts"
        raise ValueError(
            f"model.backbone {name} does not accept images of {size}×{size} pixels ({error}): set data.image_size to "
            f"{accepted}, or use another model.backbone"
        ) from error
    finally:
        backbone.train(was_training)


def check_backbone(name: str, image_size: int, layer_decay: float, gradient_checkpointing: bool) -> None:
    """Builds a backbone and raises ValueError, naming the parameter, if training could not use it.

    Args:
        name: Value of model.backbone.
        image_size: Value of data.image_size.
        layer_decay: Value of train.layer_decay.
        gradient_checkpointing: Value of train.gradient_checkpointing.
    """
    backbone = build(name)
    check_image_size(backbone, name, image_size, torch.device("cpu"))
    layer_scales(backbone, layer_decay, "train.layer_decay", "")
    if gradient_checkpointing:
        checkpoint_gradients(backbone, "train.gradient_checkpointing")


class TrainStep:
    """Callable that trains the networks on one batch, on one rank or many.

    Args:
        model: The networks; moved to the device, put into channels-last layout and train mode, and given synchronised
            batch norm.
        device: Where to train.
        precision: bfloat16 runs backbone and MLPs under autocast.
        accumulation_steps: Number of micro-batches of a batch, whose mean gradient gives one step. Batch-norm
            statistics, mean mask embeddings and Sinkhorn's sums are then those of a micro-batch (over all ranks).
        compiled: Compile both backbones with torch.compile; without a compiler they run uncompiled, with a warning.
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
        else:
            keep_freed_memory()
        model.to(device)
        for parameter in model.parameters():
            if parameter.ndim == 4:
                # .contiguous() would keep the strides of 1×1 convolutions, which then differ from their gradients'.
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

    def __call__(
        self,
        view1_B3HW: Tensor,
        view2_B3HW: Tensor,
        optimizer: Optimizer,
        lr: float,
        target_momentum: float,
        prototype_momentum: float,
        regional: bool = True,
        frozen: bool = False,
    ) -> StepOutput:
        """Runs one optimiser step and updates target network and prototypes; never waits for the device.

        Args:
            view1_B3HW: View 1 of this rank's images.
            view2_B3HW: View 2 of the same images.
            optimizer: Optimiser of the trained parameters.
            lr: Learning rate of this step; the optimiser's groups may have factors, see `fra.train.optim.set_lr`.
            target_momentum: Momentum of the target network's update.
            prototype_momentum: Momentum of the prototypes' update.
            regional: False trains at image level: no region or relation loss.
            frozen: True trains the heads only; gradients of the backbone are computed and discarded.
        """
        set_lr(optimizer, lr)
        optimizer.zero_grad(set_to_none=True)
        output, online_masks, target_masks = self.backward(view1_B3HW, view2_B3HW, regional)
        if frozen:
            self.model.online.backbone.zero_grad(
                set_to_none=True
            )  # the optimiser skips parameters without one
        optimizer.step()
        self.model.update_target(target_momentum)
        self.model.update_prototypes(online_masks, target_masks, prototype_momentum)
        return output

    def backward(
        self, view1_B3HW: Tensor, view2_B3HW: Tensor, regional: bool = True
    ) -> tuple[StepOutput, list[Tensor], list[Tensor]]:
        """Computes the gradients of a batch without an optimiser step.

        Backward runs on one direction before the other is computed, which needs half the memory of both at once.

        Returns:
            The output, and the mean mask embeddings (K, D) of view 1 and view 2 by the online and by the target
            network (empty lists at image level).

        Raises:
            ValueError: The images cannot be split into equal micro-batches.
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
                target1, target2 = (self.model.embed_target(view, regional) for view in (view1, view2))
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
            StepOutput(torch.stack(losses).sum(0) / self.accumulation_steps, online[-1]),
            _masks_by_view(online),
            _masks_by_view(target),
        )

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns a context in which backbone and MLPs run in `precision`."""
        enabled = self.precision == torch.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _networks(self, regional: bool) -> nn.Module:
        """Returns the model, wrapped for several ranks; at image level some weights get no gradient."""
        if dist.world_size() == 1:
            return self.model
        if self._parallel is None or self._parallel_regional != regional:
            self._parallel_regional = regional
            self._parallel = DistributedDataParallel(
                self.model, gradient_as_bucket_view=True, find_unused_parameters=not regional
            )
            # Batch statistics are synchronised, so buffers stay equal. (PyTorch 2.15 renames the argument.)
            self._parallel.broadcast_buffers = False
        return self._parallel


def _masks_by_view(outputs: Sequence[Embeddings]) -> list[Tensor]:
    """Returns the mean mask embedding (K, D) of view 1 and of view 2; outputs alternate between the views."""
    masks = [embeddings.regions.masks_KD for embeddings in outputs if embeddings.regions is not None]
    return [torch.stack(masks[view::2]).mean(0) for view in (0, 1)] if masks else []


def _compile(model: FRA) -> None:
    """Compiles both backbones, which take most of the time; what cannot be compiled runs uncompiled."""
    torch._dynamo.config.suppress_errors = True
    model.online.backbone.compile(backend=_inductor_or_eager)
    model.target.backbone.compile(backend=_inductor_or_eager)


def _inductor_or_eager(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """A backend for torch.compile: inductor, or the uncompiled graph where that fails (no compiler installed)."""
    try:
        compiled: Callable[..., Any] = torch._dynamo.lookup_backend("inductor")(graph, inputs)
    except Exception as error:  # PyTorch has no common class for these
        _warn_once(" ".join(str(error).split()))
        return graph.forward
    return compiled


@cache
def _warn_once(reason: str) -> None:
    logger.warning("train.compile: the backbone cannot be compiled and runs as written: %s", reason)
