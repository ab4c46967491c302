"""LARS and AdamW, the parameters excluded from weight decay and adaptation, and learning rates by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from fra.method.backbone import Backbone

NamedParameters: TypeAlias = Iterable[tuple[str, torch.nn.Parameter]]


SCALE = "lr_scale"
"""Key of a parameter group: the factor of its learning rate."""


class LARS(Optimizer):
    """SGD with momentum and layer-wise adaptive rates (You et al. 2017, arXiv 1708.03888), as in the official code.

    The update of a parameter w with gradient g is g + weight_decay · w, scaled by
    trust · ‖w‖ / (‖g‖ + weight_decay · ‖w‖), or by 1 if ‖w‖ or ‖g‖ is 0. A step never waits for the device.

    Args:
        params: Parameters or parameter groups. A group with `adapt=False` is excluded from the scaling, and from
            weight decay unless it sets its own.
        lr: Learning rate.
        momentum: Momentum of the velocity.
        weight_decay: Factor of w in the update.
        trust: Trust coefficient of the layer-wise rate.

    Raises:
        ValueError: A number is negative.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        for name, value in (
            ("lr", lr),
            ("momentum", momentum),
            ("weight_decay", weight_decay),
            ("trust", trust),
        ):
            if value < 0:
                raise ValueError(f"LARS: {name} must not be negative, got {value}")
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True},
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a parameter group; one with `adapt=False` gets no weight decay by default."""
        if not param_group.get("adapt", True):
            param_group.setdefault("weight_decay", 0.0)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates all parameters that have a gradient; returns the result of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step(params, **{n: value for n, value in group.items() if n not in ("params", SCALE)})
        return loss

    def _step(
        self,
        params: list[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float,
        adapt: bool,
    ) -> None:
        gradients = [p.grad for p in params if p.grad is not None]
        updates = torch._foreach_add(gradients, params, alpha=weight_decay) if weight_decay else gradients
        if adapt:
            weight = torch.stack(torch._foreach_norm(params))
            gradient = torch.stack(torch._foreach_norm(gradients))
            adapted = trust * weight / (gradient + weight_decay * weight)
            rate = torch.where((weight > 0) & (gradient > 0), adapted, 1.0)
            updates = torch._foreach_mul(updates, rate.unbind())
        velocities = [self._velocity(p) for p in params]
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, updates)
        torch._foreach_add_(params, velocities, alpha=-lr)

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["velocity"] = torch.zeros_like(parameter)
        velocity: Tensor = state["velocity"]
        return velocity


def adaptation_groups(named: NamedParameters) -> list[dict[str, Any]]:
    """Returns two parameter groups for LARS; the second is excluded from adaptation and weight decay.

    It holds all biases and the norms of the backbone. The official code selects by name, too, so that norms in the
    MLPs and the decoder are not excluded.
    """
    kept, excluded = _split(named, lambda name, p: "bias" in name or ("backbone." in name and p.ndim <= 1))
    return [{"params": kept}, {"params": excluded, "adapt": False}]


def decay_groups(named: NamedParameters) -> list[dict[str, Any]]:
    """Returns two parameter groups for AdamW; the second (biases, norms, other vectors) has no weight decay."""
    kept, excluded = _split(named, lambda name, p: p.ndim <= 1)
    return [{"params": kept}, {"params": excluded, "weight_decay": 0.0}]


def _split(
    named: NamedParameters, excludes: Callable[[str, Tensor], bool]
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    kept: list[torch.nn.Parameter] = []
    excluded: list[torch.nn.Parameter] = []
    for name, parameter in named:
        (excluded if excludes(name, parameter) else kept).append(parameter)
    return kept, excluded


def lars(
    named: NamedParameters,
    lr: float,
    momentum: float,
    weight_decay: float,
    trust: float,
    scales: Mapping[str, float] | None = None,
) -> LARS:
    """Returns LARS with the exclusions of the official code (`adaptation_groups`); see `layer_scales`."""
    named = list(named)
    groups = split_by_scale(adaptation_groups(named), named, scales)
    return LARS(groups, lr, momentum, weight_decay, trust)


def adamw(
    named: NamedParameters, lr: float, weight_decay: float, scales: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """Returns AdamW without weight decay on vectors (`decay_groups`); see `layer_scales`."""
    named = list(named)
    groups = split_by_scale(decay_groups(named), named, scales)
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)


def layer_scales(backbone: Backbone, decay: float, parameter: str, prefix: str) -> dict[str, float]:
    """Returns the factor of the learning rate of each parameter of a backbone: decay^(number of layers after it).

    Heads count as a layer after the last one of the backbone, as in BEiT and MAE; they have the whole rate.

    Args:
        backbone: The network.
        decay: Factor from a layer to the one before it; 1 gives no factors.
        parameter: Name of the setting, for the message.
        prefix: What the names of the backbone's parameters begin with.

    Raises:
        ValueError: The layers of the backbone are not known.
    """
    if decay == 1:
        return {}
    try:
        numbers = backbone.layer_numbers()
    except ValueError as error:
        raise ValueError(f"{parameter} is {decay:g}, but {error}; set it to 1") from None
    last = max(numbers.values())
    return {f"{prefix}{name}": decay ** (last + 1 - number) for name, number in numbers.items()}


def split_by_scale(
    groups: list[dict[str, Any]], named: NamedParameters, scales: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Returns parameter groups that have one factor of the learning rate each (`SCALE`); without scales as they are."""
    if not scales:
        return groups
    scale_of = {id(parameter): scales.get(name, 1.0) for name, parameter in named}
    return [
        {**group, "params": [p for p in group["params"] if scale_of[id(p)] == scale], SCALE: scale}
        for group in groups
        for scale in sorted({scale_of[id(p)] for p in group["params"]})
    ]


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of all groups, each times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(SCALE, 1.0)
