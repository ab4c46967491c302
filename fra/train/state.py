"""The state of a run that changes with every step, apart from weights and optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fra.train.step import LOSSES


@dataclass
class TrainState:
    """Counters and records of a run; a checkpoint holds them next to the weights.

    Attributes:
        step: Number of steps done.
        image_size: Side of the views in pixels; 0 before the first step.
        seconds: Time spent in steps.
        seconds_waiting: Part of `seconds` spent waiting for the next batch.
        history: Rows of the history, with `images_per_second` in each.
        scores: Latest scores of the backbone by column name: the kNN probe's, and label-free measures.
        loss_sums: Sums of the losses since the last row of the history, in the order of `LOSSES`.
        loss_count: Number of steps in `loss_sums`.
        mean_loss: Running mean of the total loss; None before the first.
        rollbacks: Number of times the run went back to a checkpoint after a divergence.
        skipped_steps: Steps whose batches caused a divergence and are left out.
    """

    step: int = 0
    image_size: int = 0
    seconds: float = 0.0
    seconds_waiting: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    loss_sums: list[float] = field(default_factory=lambda: [0.0] * len(LOSSES))
    loss_count: int = 0
    mean_loss: float | None = None
    rollbacks: int = 0
    skipped_steps: list[int] = field(default_factory=list)

    def add_losses(self, losses: list[float]) -> None:
        """Adds the losses of one step to the sums."""
        self.loss_sums = [total + loss for total, loss in zip(self.loss_sums, losses, strict=True)]
        self.loss_count += 1

    def take_mean_losses(self) -> list[float]:
        """Returns the mean losses since the last call and starts new sums."""
        means = [total / self.loss_count for total in self.loss_sums]
        self.loss_sums, self.loss_count = [0.0] * len(LOSSES), 0
        return means

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name, as a checkpoint holds them."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> TrainState:
        """Returns the state that `as_dict` gave; other keys are ignored."""
        return cls(**{item.name: saved[item.name] for item in fields(cls)})
