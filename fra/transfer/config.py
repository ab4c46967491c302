"""Parameters of transfer (sections `transfer` and `tasks` of params.yaml)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Lt, MinLen
from pydantic import AfterValidator, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from fra.config import CHECKED, PositiveShare, Share

PRETRAINED, RANDOM = "pretrained", "random"
"""Names, in results, of the pre-trained backbone and of its architecture with random weights."""
MINUS = " - "
"""Separator, in results, of the two models of a difference, as in "pretrained - random"."""
RELEASED = "released"
"""Name that the recipes give to the released weights among their baselines."""
TASKS = (
    "expression",
    "attributes",
    "alignment",
    "verification",
    "action_units",
    "gaze",
    "direction",
    "actions",
)
"""Names of the tasks (`fra.transfer.tasks.table.TASKS` defines them)."""
LandmarkLoss = Literal["wing", "star"]
HeadProtocol = Literal["linear", "finetune"]
"""A protocol whose result is a head that can be stored."""
Fractions = Annotated[tuple[PositiveShare, ...], MinLen(1)]


def kind_of(name: str) -> str:
    """Return what a task predicts; a task on a further labelled set is named `<set>-<kind>`: synthetic-alignment."""
    return name.rpartition("-")[2]


def _task(name: str) -> str:
    if kind_of(name) not in TASKS:
        raise ValueError(f"there is no task {name!r}; choose of {', '.join(TASKS)}, or <set>-<one of these>")
    return name


def _baseline(name: str) -> str:
    if name in (PRETRAINED, RANDOM, "test") or MINUS in name:
        raise ValueError(f"{name!r} is a name that results use: give another one")
    return name


TaskName = Annotated[str, AfterValidator(_task)]
BaselineName = Annotated[str, AfterValidator(_baseline)]


@dataclass(frozen=True, config=CHECKED)
class FinetuneConfig:
    """How a backbone is fine-tuned. Defaults: the official code's recipe."""

    epochs: PositiveInt = 100
    """Passes over the training images."""
    warmup_epochs: NonNegativeInt = 5
    """Epochs in which the learning rate rises linearly from 0; capped to `epochs`, with a warning."""
    batch_size: Annotated[int, Ge(2)] = 256
    """Images of one step; batch normalisation needs two."""
    lr: PositiveFloat = 2e-4
    """Learning rate of AdamW at the end of the warm-up."""
    layer_decay: PositiveShare = 1.0
    """Factor of the learning rate from each layer of the backbone to the one before; 1: one rate for all."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay of AdamW."""
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Decay, per step, of a moving average of the weights, which is evaluated and kept instead; 0: none."""
    gradient_checkpointing: bool = False
    """Compute the backbone's activations again in the backward pass: less memory, more time, the same gradients."""
    rotation: NonNegativeFloat = 10.0
    """Degrees by which an image is rotated, at most."""
    shift: NonNegativeFloat = 0.05
    """Share of the side by which an image is shifted, at most."""
    jitter: NonNegativeFloat = 0.2
    """Brightness and contrast are multiplied by 1 ± this, at most."""
    erase: Share = 0.25
    """Probability that a rectangle of up to a third of each side is erased."""
    balanced: bool = False
    """Draw each class of expression equally often."""
    landmark_loss: LandmarkLoss = "wing"
    """Loss of landmark coordinates."""


@dataclass(frozen=True, config=CHECKED)
class TransferConfig:
    """How backbones are evaluated on the tasks: each protocol, at each fraction of the labels, for each seed."""

    seeds: PositiveInt = 3
    """Number of fits, with the seeds 0, 1 and so on."""
    protocols: Annotated[tuple[Literal["linear", "knn", "finetune"], ...], MinLen(1)] = ("linear",)
    """A linear model or nearest neighbours on frozen features, or fine-tuning. Verification compares features."""
    model_protocol: HeadProtocol = "linear"
    """Protocol of the task model that each task writes; with one that is not in `protocols`, one more fit."""
    fractions: Fractions = (1.0,)
    """Shares of the labelled training subjects that are used."""
    validation: Literal["redrawn", "manifest"] = "redrawn"
    """Draw validation subjects from the splits train and val for each seed, or keep the manifest's split."""
    labels: dict[TaskName, tuple[str, ...]] = field(default_factory=dict)
    """Label columns of a task, where they are not those of the embedded faces: task → names."""
    groups: dict[TaskName, tuple[str, ...]] = field(default_factory=dict)
    """Columns of the manifest whose values form groups with metrics of their own: task → columns."""
    baselines: dict[BaselineName, str] = field(default_factory=dict)
    """Further backbones to compare with: name → file in data/baselines, or released weights such as demo."""
    align: bool = True
    """Align faces by their landmarks, for tasks whose published sets are aligned."""
    grid: PositiveInt = 8
    """Side to which feature maps are pooled for the task alignment."""
    pairs: PositiveInt = 3000
    """Pairs of images of one person that verification draws, at most."""
    pairs_file: str | None = None
    """LFW's pairs.txt, whose ten folds are used instead of drawn pairs."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Fine-tuning, for protocols=[finetune]."""
    device: str = "auto"
    """Torch device; auto: a GPU where there is one."""
    cache: str = ".work/features"
    """Folder of cached features, shared by all tasks; can be deleted at any time."""


@dataclass(frozen=True, config=CHECKED)
class TaskConfig:
    """The data set of one task."""

    dataset: str
    """Name of the data set that the task is evaluated on."""
    validation: str
    """Folder of that data set's validation result."""
    seeds: PositiveInt | None = None
    """Number of fits of this task; null: as transfer.seeds."""
    fractions: Fractions | None = None
    """Shares of the labelled training subjects of this task; null: as transfer.fractions."""
