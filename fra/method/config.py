"""Parameters of the networks and of the objective (sections `model` and `objective` of params.yaml)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from fra.config import CHECKED


@dataclass(frozen=True, config=CHECKED)
class ModelConfig:
    """Sizes of the networks. Defaults: the paper's (arXiv 2403.02138)."""

    backbone: str = "resnet50"
    """Backbone: mini, small, resnet18, resnet34, resnet50, resnet101 or timm:<model>."""
    num_masks: PositiveInt = 8
    """Facial regions that are discovered; 1 is BYOL: no region branch is built."""
    projection_dim: PositiveInt = 256
    """Channels of the embeddings that are compared."""
    hidden_dim: PositiveInt = 4096
    """Channels of the hidden layer of projectors and predictors."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Dropout in the mask decoder."""
    query_std: PositiveFloat = 1.0
    """Standard deviation of the mask queries' initial values; larger makes masks differ sooner."""


@dataclass(frozen=True, config=CHECKED)
class ObjectiveConfig:
    """Weights and temperatures of the objective. Region and relation weight both 0 is BYOL."""

    global_weight: NonNegativeFloat = 0.5
    """Weight of the consistency of whole-face embeddings."""
    region_weight: NonNegativeFloat = 0.5
    """Weight of the consistency of region embeddings."""
    relation_weight: NonNegativeFloat = 0.1
    """Weight of the semantic relation loss (pixels assigned to masks)."""
    decorrelation_weight: NonNegativeFloat = 0.02
    """Weight, within the region loss, of the term that keeps the regions' embeddings apart."""
    student_temp: PositiveFloat = 0.1
    """Temperature of the online network's assignments."""
    teacher_temp: PositiveFloat = 0.04
    """Temperature of the target network's assignments."""
    sinkhorn_iterations: NonNegativeInt = 3
    """Sinkhorn-Knopp iterations that balance the target network's assignments."""

    def __post_init__(self) -> None:
        if not (self.global_weight or self.region_weight or self.relation_weight):
            raise ValueError("one of global_weight, region_weight, relation_weight must be greater than 0")
