"""LARS and AdamW, and which parameters each leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

Named: TypeAlias = Iterable[tuple[str, torch.nn.Parameter]]


class LARS(Optimizer):
    """SGD with momentum and layer-wise adaptive rates (You et al. 2017), as the official code has it.

    A parameter w with gradient g takes a step of SGD with momentum along g + weight_decay · w, scaled by
    trust · ‖w‖ / (‖g‖ + weight_decay · ‖w‖), or by 1 where ‖w‖ or ‖g‖ is 0. A parameter group with
    `adapt=False` is excluded from the scaling, and from weight decay unless it names its own. No value is
    read back from the device.
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
        if not param_group.get("adapt", True):
            param_group.setdefault("weight_decay", 0.0)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step(params, **{name: value for name, value in group.items() if name != "params"})
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


def adaptation_groups(named: Named) -> list[dict[str, Any]]:
    """Parameter groups for LARS: excluded from adaptation and decay are all biases and the backbone's norms.

    The official code finds these by name, so that norms outside the backbone (in MLPs and decoder) are not
    excluded.
    """
    kept, excluded = _split(named, lambda name, p: "bias" in name or ("backbone." in name and p.ndim <= 1))
    return [{"params": kept}, {"params": excluded, "adapt": False}]


def decay_groups(named: Named) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: no weight decay on biases, norms and other vectors."""
    kept, excluded = _split(named, lambda name, p: p.ndim <= 1)
    return [{"params": kept}, {"params": excluded, "weight_decay": 0.0}]


def _split(
    named: Named, excludes: Callable[[str, Tensor], bool]
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    kept: list[torch.nn.Parameter] = []
    excluded: list[torch.nn.Parameter] = []
    for name, parameter in named:
        (excluded if excludes(name, parameter) else kept).append(parameter)
    return kept, excluded


def lars(named: Named, lr: float, momentum: float, weight_decay: float, trust: float) -> LARS:
    """LARS over named parameters, with the official exclusions."""
    return LARS(adaptation_groups(named), lr, momentum, weight_decay, trust)


def adamw(named: Named, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over named parameters, vectors without decay."""
    return torch.optim.AdamW(decay_groups(named), lr=lr, weight_decay=weight_decay, foreach=True)
