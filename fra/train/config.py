"""The recipe: every number of pre-training that is not of the networks or the objective."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class TrainConfig:
    """The recipe (defaults: the paper's, for VGGFace2).

    `batch_size` is the number of images of one optimiser step, over all ranks and micro-batches.
    `accumulate` splits a rank's share into that many micro-batches: batch statistics, mean mask embeddings
    and Sinkhorn's sums are then those of a micro-batch. `trust` is LARS's alone, `momentum` too. Periods are
    in steps. `region_start` is after how many epochs regions join: until then training is at image level, and takes the
    time of that; `region_init` is where masks begin then: at "random", as the decoder's weights have it (the paper's),
    or at "clusters" of the pixels (`fra.train.mask_init`). docs/results/recipe-search.md has the
    measurements. `tensorboard` writes the
    history beside the checkpoints too, for TensorBoard.
    """

    epochs: int = 50
    batch_size: int = 512
    optimizer: str = "lars"
    lr: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 1e-6
    trust: float = 1e-3
    warmup_epochs: int = 10
    region_start: int = 0
    region_init: str = "random"
    target_momentum: float = 0.996
    prototype_momentum: float = 0.9
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    accumulate: int = 1
    compile: bool = False
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    max_rollbacks: int = 2
    explosion: float = 10.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "accumulate",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "weight_decay", "trust", "max_rollbacks", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, got {getattr(self, name)}")
        for name in ("momentum", "target_momentum", "prototype_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"train.warmup_epochs must be 0 to train.epochs ({self.epochs}), got {self.warmup_epochs}"
            )
        if not 0 <= self.region_start < self.epochs:
            raise ValueError(
                f"train.region_start must be from 0 to less than train.epochs ({self.epochs}), got {self.region_start} "
                "(objective=byol trains at image level throughout)"
            )
        if self.region_init not in ("random", "clusters"):
            raise ValueError(f"train.region_init is {self.region_init!r}: use random or clusters")
        if self.optimizer not in ("lars", "adamw"):
            raise ValueError(f"train.optimizer is {self.optimizer!r}: use lars or adamw")
        if self.precision not in PRECISIONS:
            raise ValueError(f"train.precision is {self.precision!r}: use {', '.join(PRECISIONS)}")
        if self.explosion <= 1:
            raise ValueError(f"train.explosion must be greater than 1, got {self.explosion}")
