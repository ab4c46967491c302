"""Our training step beside a plain one of the same method: same weights, same batch, alternating, in one run.

The plain step is what one writes first, and what the official code does: float32, default memory format,
both directions in one graph, LARS and the target update tensor by tensor, values read back (`.item()`)
wherever a number is wanted. It runs on the same modules, so it starts from the same weights; a test checks
its losses, gradients, LARS and target update against the official code's numbers (tests/support/official.npz).
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fra import dist
from fra.method.networks import FRA, MLP, Encoder, ModelConfig, ObjectiveConfig, build
from fra.train import optim
from fra.train.memory import free_memory
from fra.train.step import StepOutput, TrainStep, choose_precision

RECIPE = {"lr": 0.9, "momentum": 0.9, "weight_decay": 1e-6, "trust": 1e-3}
TARGET_MOMENTUM = 0.996
PROTOTYPE_MOMENTUM = 0.9

DATASHEET_FLOPS = {
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
}
"""Dense bfloat16 peak by device name; other devices are measured with a large matrix product."""


# ---- the plain step


def plain_mlp(mlp: MLP, x_BCN: Tensor) -> Tensor:
    x = F.conv1d(x_BCN, mlp.expand.weight[:, :, None])
    x = F.relu(mlp.batch_norm(x))
    return F.conv1d(x, mlp.reduce.weight[:, :, None])


def plain_encode(encoder: Encoder, view: Tensor) -> dict[str, Tensor]:
    features = encoder.backbone(view)
    batch, _, height, width = features.shape
    seen = {"global": plain_mlp(encoder.global_mlp, features.mean((2, 3))[:, :, None])[:, :, 0]}
    neck = encoder.region_neck
    if neck is None:
        return seen
    pixels = features.reshape(batch, -1, height * width)
    projected = F.normalize(plain_mlp(neck.pixel_mlp, pixels), dim=1)
    masks = neck.decoder(pixels.transpose(1, 2), height, width).mean(0)
    scores = torch.einsum("kd,bdn->bkn", F.normalize(masks, dim=1), projected)
    heatmaps = scores.softmax(1) + 1e-7
    pooled = torch.einsum("bkn,bcn->bck", heatmaps / heatmaps.sum(2, keepdim=True), pixels)
    return {**seen, "region": plain_mlp(neck.region_mlp, pooled), "scores": scores, "masks": masks}


def plain_sinkhorn(scores: Tensor) -> Tensor:
    assigned = scores.transpose(1, 2).flatten(0, 1).t().exp()
    assigned = assigned / assigned.sum()
    masks, pixels = assigned.shape
    for _ in range(3):
        assigned = assigned / assigned.sum(1, keepdim=True) / masks
        assigned = assigned / assigned.sum(0, keepdim=True) / pixels
    return (assigned * pixels).t()


def plain_losses(
    model: FRA, view1: Tensor, view2: Tensor
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Total, global, region and relation loss, and what the networks saw: online 1, online 2, target 1,
    target 2."""
    objective = model.objective
    online = [plain_encode(model.online, view) for view in (view1, view2)]
    with torch.no_grad():
        target = [plain_encode(model.target, view) for view in (view1, view2)]
    global_loss = region_loss = relation_loss = torch.zeros((), device=view1.device, dtype=view1.dtype)
    for ours, theirs in zip(online, target[::-1], strict=True):
        predicted = plain_mlp(model.global_predictor, ours["global"][:, :, None])[:, :, 0]
        global_loss = global_loss + (2 - 2 * F.cosine_similarity(predicted, theirs["global"])).mean()
        if model.region_predictor is not None:
            predicted = F.normalize(plain_mlp(model.region_predictor, ours["region"]), dim=1)
            cosines = torch.einsum("bdj,bdk->bjk", predicted, F.normalize(theirs["region"], dim=1))
            own = torch.diagonal(cosines, dim1=1, dim2=2)
            others = (cosines**2).sum(2) - own**2
            region_loss = region_loss + (2 - 2 * own).mean()
            region_loss = region_loss + objective.decorrelation_weight * others.mean() / own.shape[1]
    if model.region_predictor is not None:
        for ours, theirs in zip(online, target, strict=True):
            student = (ours["scores"] / objective.student_temp).transpose(1, 2).flatten(0, 1)
            with torch.no_grad():
                teacher = plain_sinkhorn(theirs["scores"] / objective.teacher_temp)
            mean = student.softmax(1).mean(0)
            relation_loss = relation_loss - (teacher * student.log_softmax(1)).sum(1).mean() / 2
            relation_loss = relation_loss + (math.log(len(mean)) + (mean * mean.log()).sum()) / 2
    global_loss = objective.global_weight * global_loss
    region_loss = objective.region_weight * region_loss
    total = global_loss + region_loss + objective.relation_weight * relation_loss
    parts = {"total": total, "global": global_loss, "region": region_loss, "relation": relation_loss}
    return parts, online + target


class PlainLARS:
    """LARS one tensor at a time."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self.groups = list(groups)
        self.velocity: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, lr: float, momentum: float, weight_decay: float, trust: float) -> None:
        for group in self.groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = parameter.grad
                if group.get("adapt", True):
                    weight_norm, update_norm = parameter.norm().item(), update.norm().item()
                    update = update + weight_decay * parameter
                    if weight_norm > 0 and update_norm > 0:
                        update = update * (trust * weight_norm / (update_norm + weight_decay * weight_norm))
                velocity = self.velocity.setdefault(parameter, torch.zeros_like(parameter))
                velocity.mul_(momentum).add_(update)
                parameter.sub_(lr * velocity)


@torch.no_grad()
def plain_target_update(model: FRA, momentum: float) -> None:
    for target, online in zip(model.target.parameters(), model.online.parameters(), strict=True):
        target.data = momentum * target.data + (1 - momentum) * online.data


@torch.no_grad()
def plain_prototype_update(encoder: Encoder, seen: dict[str, Tensor]) -> None:
    if encoder.region_neck is not None:
        prototypes = encoder.region_neck.masks_KD
        prototypes.copy_(PROTOTYPE_MOMENTUM * prototypes + (1 - PROTOTYPE_MOMENTUM) * seen["masks"])


def plain_step(model: FRA, lars: PlainLARS, view1: Tensor, view2: Tensor) -> dict[str, float]:
    """One whole step; returns the losses."""
    for _, parameter in model.trained_parameters():
        parameter.grad = None
    parts, seen = plain_losses(model, view1, view2)
    torch.autograd.backward(parts["total"])
    lars.step(**RECIPE)
    plain_target_update(model, TARGET_MOMENTUM)
    for encoder, one in zip((model.online, model.online, model.target, model.target), seen, strict=True):
        plain_prototype_update(encoder, one)
    return {name: loss.item() for name, loss in parts.items()}


# ---- measuring


def step(
    model: ModelConfig,
    image_size: int = 224,
    batch_size: int = 16,
    rounds: int = 5,
    device: str = "auto",
    precision: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Measure both steps in turn, `rounds` times after one warm-up each.

    Returns `baseline` and `ours` (images a second, medians), their `ratio`, the memory that each step takes
    on top of the networks (`baseline_step_bytes`, `ours_step_bytes`), `flops_per_step` (counted, not
    estimated), and the model FLOPs utilisation of each: FLOPs a second as a fraction of `peak_flops`.
    """
    check(rounds, batch_size)
    where = dist.choose_device(device)
    dtype = choose_precision(precision, where)
    plain, fast = both_steps(model, where, dtype, compiled)
    views = [torch.randn(batch_size, 3, image_size, image_size, device=where) for _ in range(2)]
    baseline, ours = partial(plain, *views), partial(fast, *views)
    with FlopCounterMode(display=False) as counter:
        baseline()
    ours()
    laps = _in_turn({"baseline": baseline, "ours": ours}, rounds, where)
    peak, source = peak_flops(where, dtype)
    return {
        **_figures(laps, batch_size, counter.get_total_flops(), peak),
        "peak_flops_source": source,
        **asdict(model),
        "image_size": image_size,
        "batch_size": batch_size,
        "rounds": rounds,
        "device": device_name(where),
        "threads": torch.get_num_threads(),
        "precision": str(dtype).removeprefix("torch."),
    }


class Lap(NamedTuple):
    """Seconds that a call took, and bytes of memory at its peak beyond those before it."""

    seconds: float
    bytes: int


def check(rounds: int, batch_size: int) -> None:
    """Raises ValueError where they make no comparison."""
    if rounds < 1 or batch_size < 2:
        raise ValueError(
            f"rounds must be at least 1 and batch_size at least 2, got {rounds} and {batch_size}"
        )


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _in_turn(
    steps: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[Lap]]:
    laps: dict[str, list[Lap]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, run in steps.items():
            laps[name].append(_measure(run, device))
    return laps


def _figures(laps: dict[str, list[Lap]], batch_size: int, flops: int, peak: float) -> dict[str, float]:
    """What the laps of both steps say, `flops` being the FLOPs of one step."""
    seconds = {name: statistics.median(lap.seconds for lap in taken) for name, taken in laps.items()}
    return {
        **{name: batch_size / taken for name, taken in seconds.items()},
        "ratio": seconds["baseline"] / seconds["ours"],
        **{f"{name}_step_bytes": max(lap.bytes for lap in taken) for name, taken in laps.items()},
        "flops_per_step": flops,
        "peak_flops": peak,
        **{f"{name}_mfu": flops / taken / peak for name, taken in seconds.items()},
    }


def both_steps(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, compiled: bool
) -> tuple[Callable[[Tensor, Tensor], dict[str, float]], Callable[[Tensor, Tensor], StepOutput]]:
    """The plain step and ours on a pair of views, each on networks of its own that begin with the same weights."""
    torch.manual_seed(0)
    plain_model = build(config, ObjectiveConfig()).to(device).train()
    train_step = TrainStep(copy.deepcopy(plain_model), device, dtype, compiled=compiled)
    plain_lars = PlainLARS(optim.adaptation_groups(plain_model.trained_parameters()))
    lars = optim.lars(train_step.model.trained_parameters(), **RECIPE)

    def ours(view1: Tensor, view2: Tensor) -> StepOutput:
        return train_step(view1, view2, lars, RECIPE["lr"], TARGET_MOMENTUM, PROTOTYPE_MOMENTUM)

    return partial(plain_step, plain_model, plain_lars), ours


def _measure(run: Callable[[], object], device: torch.device) -> Lap:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        start = time.perf_counter()
        run()
        torch.cuda.synchronize(device)
        return Lap(time.perf_counter() - start, torch.cuda.max_memory_allocated(device) - before)
    before = _reset_peak_memory()
    start = time.perf_counter()
    run()
    return Lap(time.perf_counter() - start, _process_memory("VmHWM") - before)


def _reset_peak_memory() -> int:
    """Hand free memory back and make the kernel forget this process's peak (Linux, glibc); bytes it has
    now."""
    free_memory(torch.device("cpu"))
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return _process_memory("VmRSS")


def _process_memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Peak FLOPs a second, from the datasheet of a known GPU or else from a large matrix product."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = device_name(device)
        if name in DATASHEET_FLOPS:
            return DATASHEET_FLOPS[name], "datasheet"
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        a @ b

    _measure(product, device)
    return 2 * size**3 / min(_measure(product, device).seconds for _ in range(5)), "measured"
