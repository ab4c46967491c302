"""Parameters of pre-training and of the nearest-neighbour probe (sections `train` and `probe` of params.yaml)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from fra.config import CHECKED, PositiveShare, Seed, Share

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, config=CHECKED)
class TrainConfig:
    """How networks are trained. Defaults: the paper's recipe for VGGFace2 (arXiv 2403.02138)."""

    epochs: PositiveInt = 50
    """Passes over the training images."""
    batch_size: PositiveInt = 512
    """Images of one optimiser step, over all ranks and micro-batches."""
    optimizer: Literal["lars", "adamw"] = "lars"
    """Optimiser."""
    lr: NonNegativeFloat = 0.9
    """Learning rate at the end of the warm-up."""
    momentum: Share = 0.9
    """Momentum of LARS; AdamW ignores it."""
    layer_decay: PositiveShare = 1.0
    """Factor of the learning rate from each layer of the backbone to the one before; 1: one rate for all."""
    weight_decay: NonNegativeFloat = 1e-6
    """Weight decay; biases and normalisation layers have none."""
    trust_coefficient: NonNegativeFloat = 1e-3
    """Trust coefficient of LARS; AdamW ignores it."""
    warmup_epochs: NonNegativeInt = 10
    """Epochs in which the learning rate rises linearly from 0; capped to `epochs`, with a warning."""
    region_start_epoch: NonNegativeInt = 0
    """Epochs at image level before the region losses start; less than `epochs`. These epochs take half the time."""
    mask_init: Literal["random", "clusters"] = "random"
    """Masks when the region losses start: the decoder's random weights (the paper) or clusters of pixel features."""
    target_momentum: Share = 0.996
    """Momentum of the target network at step 0; rises to 1 by a cosine."""
    prototype_momentum: Share = 0.9
    """Momentum of the prototypes that pixels are assigned to."""
    seed: Seed = 0
    """Seed of weights, order of images, views and dropout."""
    init: str | None = None
    """Weights to start from: a file, or the name of released weights such as demo; null: random weights."""
    init_warmup_epochs: NonNegativeInt = 1
    """Epochs in which the backbone of `init` stays as it is, where heads are new: they would destroy it at first."""
    device: str = "auto"
    """Torch device; auto: a GPU where there is one."""
    precision: Precision = "auto"
    """Precision of the forward pass; auto: bfloat16 where the device is fast in it."""
    accumulation_steps: PositiveInt = 1
    """Micro-batches per optimiser step; batch statistics and Sinkhorn's sums are those of a micro-batch."""
    gradient_checkpointing: bool = False
    """Compute the backbone's activations again in the backward pass: less memory, more time, the same gradients."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    log_every: PositiveInt = 10
    """Steps between rows of history.csv."""
    measure_every: NonNegativeInt = 500
    """Steps between label-free measures of the backbone (also before the first and after the last step); 0: none."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints that are kept, the latest ones."""
    max_rollbacks: NonNegativeInt = 2
    """Times that a diverged training returns to a checkpoint and leaves the batch out, before it fails."""
    max_loss_ratio: Annotated[float, Gt(1)] = 10.0
    """A loss above this multiple of its running mean counts as divergence."""
    tensorboard: bool = False
    """Write the history in TensorBoard's format too."""

    def __post_init__(self) -> None:
        if self.region_start_epoch >= self.epochs:
            raise ValueError(
                f"region_start_epoch must be less than epochs ({self.epochs}), got {self.region_start_epoch} "
                "(objective=byol trains at image level throughout)"
            )
        if self.compile and self.gradient_checkpointing:
            raise ValueError(
                "compile and gradient_checkpointing are both true, which PyTorch does not support: set one to false"
            )
        images, rest = divmod(self.batch_size, self.accumulation_steps)
        if rest:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be split into accumulation_steps {self.accumulation_steps} "
                "equal micro-batches: set accumulation_steps to a divisor of batch_size"
            )
        if images < 2:
            raise ValueError(
                f"batch_size {self.batch_size} with accumulation_steps {self.accumulation_steps} leaves one image "
                "per micro-batch, but batch normalisation needs two: raise batch_size or lower accumulation_steps"
            )


@dataclass(frozen=True, config=CHECKED)
class ProbeConfig:
    """A score during pre-training: the accuracy of nearest neighbours on a labelled set."""

    manifest: str
    """Manifest of the labelled set (a parquet file)."""
    shards: str
    """Folder of the labelled set's shards."""
    validation: str
    """Folder of the labelled set's validation result."""
    every: NonNegativeInt = 0
    """Epochs between scores; 0: no probe."""
    labels: tuple[str, ...] = ()
    """Label columns of the manifest, such as Smiling; the score is their mean."""
    neighbours: PositiveInt = 20
    """Neighbours that vote on a label."""
    images: PositiveInt = 2000
    """Images used at most, drawn once."""

    def __post_init__(self) -> None:
        if self.every and not self.labels:
            raise ValueError("labels is empty: name label columns of the manifest, such as [Smiling]")
