"""The recipe: every number of pre-training that is not of the networks or the objective."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class TrainConfig:
    """The recipe (defaults: the paper's, for VGGFace2).

    `batch_size` is the number of images of one optimiser step, over all ranks and micro-batches.
    `accumulation_steps` splits a rank's share into that many micro-batches: batch statistics, mean mask embeddings
    and Sinkhorn's sums are then those of a micro-batch. `trust_coefficient` is LARS's alone, `momentum` too. Periods are
    in steps. `region_start_epoch` is after how many epochs regions join: until then training is at image level, and takes the
    time of that; `mask_init` is where masks begin then: at "random", as the decoder's weights have it (the paper's),
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
    trust_coefficient: float = 1e-3
    warmup_epochs: int = 10
    region_start_epoch: int = 0
    mask_init: str = "random"
    target_momentum: float = 0.996
    prototype_momentum: float = 0.9
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    accumulation_steps: int = 1
    compile: bool = False
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    max_rollbacks: int = 2
    max_loss_ratio: float = 10.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "accumulation_steps",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "weight_decay", "trust_coefficient", "max_rollbacks", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, got {getattr(self, name)}")
        for name in ("momentum", "target_momentum", "prototype_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"train.warmup_epochs must be 0 to train.epochs ({self.epochs}), got {self.warmup_epochs}"
            )
        if not 0 <= self.region_start_epoch < self.epochs:
            raise ValueError(
                f"train.region_start_epoch must be from 0 to less than train.epochs ({self.epochs}), got {self.region_start_epoch} "
                "(objective=byol trains at image level throughout)"
            )
        if self.mask_init not in ("random", "clusters"):
            raise ValueError(f"train.mask_init is {self.mask_init!r}: use random or clusters")
        if self.optimizer not in ("lars", "adamw"):
            raise ValueError(f"train.optimizer is {self.optimizer!r}: use lars or adamw")
        if self.precision not in PRECISIONS:
            raise ValueError(f"train.precision is {self.precision!r}: use {', '.join(PRECISIONS)}")
        if self.max_loss_ratio <= 1:
            raise ValueError(f"train.max_loss_ratio must be greater than 1, got {self.max_loss_ratio}")
