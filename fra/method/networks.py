"""The online and the target network, and the objective between them (arXiv 2403.02138, CVPR 2024).

Shapes: B images, C backbone channels, an H×W feature map, K masks, D projection channels, P = H·W pixels.

The loss of a pair of views is the sum of two directions: the online network on one view compared with the target
network on both. `FRA.forward` computes one direction, so that a training loop can run backward before it computes the
other, with half the memory and the same gradient. `FRA.losses` computes both at once. Target network and prototypes
change only when `FRA.update_target` and `FRA.update_prototypes` are called.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fra import dist
from fra.method import losses, regions
from fra.method.backbone import build as build_backbone
from fra.method.config import ModelConfig, ObjectiveConfig


class Regions(NamedTuple):
    """Region output of an encoder for one view.

    Attributes:
        embeddings_BKD: Region embeddings.
        scores_BKHW: Cosines of mask embeddings and pixel projections.
        heatmaps_BKHW: Softmax of the scores over the masks, plus 1e-7.
        masks_KD: Mask embeddings used: in training their mean over the batch of all ranks, in eval mode the prototypes.
    """

    embeddings_BKD: Tensor
    scores_BKHW: Tensor
    heatmaps_BKHW: Tensor
    masks_KD: Tensor


class Embeddings(NamedTuple):
    """Output of an encoder for one view; `regions` is None at image level, as in BYOL."""

    global_BD: Tensor
    regions: Regions | None


class Direction(NamedTuple):
    """Losses of one direction (scalars) and the online embeddings, all but `total` without gradient.

    `total` = `global_` + `region` + relation_weight × `relation`. `global_` and `region` include their weights.
    `relation` does not; it includes a factor of 1/2, since the relation loss is the mean over both views.
    """

    total: Tensor
    global_: Tensor
    region: Tensor
    relation: Tensor
    online: Embeddings


class MLP(nn.Module):
    """1×1 convolution → batch norm → ReLU → 1×1 convolution, both without bias: (..., C) → (..., D).

    A 1×1 convolution over pixels or masks is computed as a linear layer over rows.

    Args:
        in_dim: Number C of input channels.
        hidden_dim: Width of the hidden layer.
        out_dim: Number D of output channels.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(in_dim, hidden_dim, bias=False)
        self.batch_norm = nn.BatchNorm1d(hidden_dim)
        self.relu = nn.ReLU(inplace=True)
        self.reduce = nn.Linear(hidden_dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., D); batch statistics are those of all rows."""
        rows = self.relu(self.batch_norm(self.expand(x.flatten(0, -2))))
        result: Tensor = self.reduce(rows)
        return result.reshape(*x.shape[:-1], -1)


class RegionNeck(nn.Module):
    """Pixel projection, mask embeddings, heatmaps and region embeddings of a feature map.

    Args:
        feature_dim: Number C of channels of the backbone.
        num_masks: Number K of masks.
        hidden_dim: Width of the hidden layer of both MLPs.
        projection_dim: Number D of projection channels.
        dropout: Dropout probability in the mask decoder.

    Attributes:
        masks_KD: Buffer with the prototypes, the running mean of the mask embeddings. In eval mode they replace the
            mean of the batch, so that the heatmaps of an image do not depend on the other images.
    """

    masks_KD: Tensor

    def __init__(
        self, feature_dim: int, num_masks: int, hidden_dim: int, projection_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.pixel_mlp = MLP(feature_dim, hidden_dim, projection_dim)
        self.region_mlp = MLP(feature_dim, hidden_dim, projection_dim)
        self.decoder = regions.MaskDecoder(feature_dim, projection_dim, num_masks, dropout)
        self.register_buffer("masks_KD", torch.randn(num_masks, projection_dim))

    def forward(self, features_BPC: Tensor, height: int, width: int) -> Regions:
        """Returns the regions of a feature map (B, H·W, C)."""
        pixels_BPD = self.pixel_mlp(features_BPC)
        masks_KD = self._batch_masks(features_BPC, height, width) if self.training else self.masks_KD
        with torch.autocast(features_BPC.device.type, enabled=False):
            scores_BKP = regions.cosine_scores(masks_KD, pixels_BPD)
            heatmaps_BKP = regions.heatmaps(scores_BKP)
            pooled_BKC = regions.pool(features_BPC, heatmaps_BKP)
        shape = (*scores_BKP.shape[:2], height, width)
        return Regions(
            self.region_mlp(pooled_BKC), scores_BKP.reshape(shape), heatmaps_BKP.reshape(shape), masks_KD
        )

    def _batch_masks(self, features_BPC: Tensor, height: int, width: int) -> Tensor:
        return dist.mean_over_ranks(self.decoder(features_BPC, height, width).mean(0))


class Encoder(nn.Module):
    """A backbone with global and region neck: images (B, 3, h, w) → `Embeddings`.

    Args:
        backbone: Any module (B, 3, h, w) → (B, `feature_dim`, H, W).
        feature_dim: Number C of channels of the backbone.
        num_masks: Number K of masks; with 1 there is no region neck.
        hidden_dim: Width of the hidden layer of all MLPs.
        projection_dim: Number D of projection channels.
        dropout: Dropout probability in the mask decoder.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        num_masks: int,
        hidden_dim: int,
        projection_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.global_mlp = MLP(feature_dim, hidden_dim, projection_dim)
        self.region_neck = (
            RegionNeck(feature_dim, num_masks, hidden_dim, projection_dim, dropout) if num_masks > 1 else None
        )

    def forward(self, images_B3HW: Tensor, regional: bool = True) -> Embeddings:
        """Returns the embeddings of a view; without `regional` the global embedding alone."""
        features_BCHW: Tensor = self.backbone(images_B3HW)
        height, width = features_BCHW.shape[-2:]
        features_BPC = features_BCHW.flatten(2).mT
        global_BD = losses.full_precision(self.global_mlp(features_BPC.mean(1)))
        if self.region_neck is None or not regional:
            return Embeddings(global_BD, None)
        return Embeddings(global_BD, self.region_neck(features_BPC, height, width))


class FRA(nn.Module):
    """Online and target network with the online network's predictors.

    The target network starts as a copy of the online network. Both stay in train mode during training, so both
    normalise with batch statistics.

    Args:
        backbone: Any module (B, 3, h, w) → (B, `feature_dim`, H, W).
        feature_dim: Number C of channels of the backbone.
        num_masks: Number K of masks; 1 is BYOL.
        hidden_dim: Width of the hidden layer of all MLPs.
        projection_dim: Number D of projection channels.
        dropout: Dropout probability in the mask decoder.
        query_std: Standard deviation of the initial queries of the mask decoder.
        objective: Weights and temperatures of the losses; region and relation weight both 0 is BYOL.

    Raises:
        ValueError: `num_masks` is less than 1, or `projection_dim` is not a multiple of the decoder's 8 heads.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        num_masks: int = 8,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        dropout: float = 0.1,
        query_std: float = 1.0,
        objective: ObjectiveConfig | None = None,
    ) -> None:
        super().__init__()
        if num_masks < 1:
            raise ValueError(f"num_masks must be at least 1 (BYOL), got {num_masks}")
        self.objective = objective or ObjectiveConfig()
        regional = num_masks > 1 and (self.objective.region_weight > 0 or self.objective.relation_weight > 0)
        self.online = Encoder(
            backbone,
            feature_dim=feature_dim,
            num_masks=num_masks if regional else 1,
            hidden_dim=hidden_dim,
            projection_dim=projection_dim,
            dropout=dropout,
        )
        if self.online.region_neck is not None:
            self.online.region_neck.decoder.query.weight.data.mul_(
                query_std
            )  # PyTorch draws them from N(0, 1)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.global_predictor = MLP(projection_dim, hidden_dim, projection_dim)
        self.region_predictor = MLP(projection_dim, hidden_dim, projection_dim) if regional else None

    def losses(self, view1_B3HW: Tensor, view2_B3HW: Tensor) -> dict[str, Tensor]:
        """Returns the losses of a pair of views (B, 3, h, w): scalars `total`, `global`, `region`, `relation`.

        total = global + region + relation_weight × relation. `global` and `region` include their weights and are
        summed over both directions; `relation` is the mean over both views, without its weight.

        Raises:
            ValueError: The views differ in shape.
        """
        if view1_B3HW.shape != view2_B3HW.shape:
            raise ValueError(
                f"views differ in shape: {tuple(view1_B3HW.shape)} and {tuple(view2_B3HW.shape)}"
            )
        target1, target2 = self.embed_target(view1_B3HW), self.embed_target(view2_B3HW)
        one, two = self(view1_B3HW, target1, target2), self(view2_B3HW, target2, target1)
        return {
            "total": one.total + two.total,
            "global": one.global_ + two.global_,
            "region": one.region + two.region,
            "relation": one.relation + two.relation,
        }

    @torch.no_grad()
    def embed_target(self, view_B3HW: Tensor, regional: bool = True) -> Embeddings:
        """Returns the target network's embeddings of a view, without gradient; see `Encoder.forward`."""
        embeddings: Embeddings = self.target(view_B3HW, regional)
        return embeddings

    def forward(self, view_B3HW: Tensor, same: Embeddings, other: Embeddings) -> Direction:
        """Returns the losses of one direction: the online network on one view, the target network on both.

        Args:
            view_B3HW: The view of the online network.
            same: The target network's embeddings of this view, for the relation loss.
            other: The target network's embeddings of the other view, for the consistency losses. Without regions in
                them, the losses are at image level.
        """
        objective = self.objective
        online: Embeddings = self.online(view_B3HW, same.regions is not None)
        global_ = objective.global_weight * losses.global_consistency(
            self.global_predictor(online.global_BD), other.global_BD
        )
        region = relation = global_.new_zeros(())
        if online.regions is not None:
            assert same.regions is not None
            assert other.regions is not None
            assert self.region_predictor is not None
            region = objective.region_weight * losses.region_consistency(
                self.region_predictor(online.regions.embeddings_BKD),
                other.regions.embeddings_BKD,
                objective.decorrelation_weight,
            )
            relation = 0.5 * losses.semantic_relation(
                online.regions.scores_BKHW,
                same.regions.scores_BKHW,
                objective.student_temp,
                objective.teacher_temp,
                objective.sinkhorn_iterations,
            )
        total = global_ + region + objective.relation_weight * relation
        return Direction(total, global_.detach(), region.detach(), relation.detach(), _detach(online))

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Sets target = momentum × target + (1 − momentum) × online: parameters only, no batch-norm statistics."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.online.parameters()), 1 - momentum)

    @torch.no_grad()
    def update_prototypes(
        self, online_masks: Sequence[Tensor], target_masks: Sequence[Tensor], momentum: float
    ) -> None:
        """Sets prototypes = momentum × prototypes + (1 − momentum) × mean mask embeddings, for each view in turn.

        Args:
            online_masks: Mean mask embeddings (K, D) of each view by the online network; empty without region neck.
            target_masks: Those of the target network, for its own prototypes.
            momentum: Momentum of the running mean.
        """
        for encoder, views in ((self.online, online_masks), (self.target, target_masks)):
            for masks_KD in views:
                assert encoder.region_neck is not None, "a model without region branch has no prototypes"
                prototypes = encoder.region_neck.masks_KD
                prototypes.lerp_(masks_KD.to(prototypes.dtype), 1 - momentum)

    @torch.no_grad()
    def initialise_masks(self, hidden_KD: Tensor, masks_KD: Tensor) -> None:
        """Makes both decoders map `hidden_KD` to `masks_KD`, which become the prototypes of both networks.

        See `MaskDecoder.fit_last_layer`; both are (K, D).
        """
        for encoder in (self.online, self.target):
            assert encoder.region_neck is not None, "a model without region branch has no masks"
            encoder.region_neck.decoder.fit_last_layer(hidden_KD, masks_KD)
            encoder.region_neck.masks_KD.copy_(masks_KD)

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the names and parameters that are trained: all but those of the target network."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)


def _detach(seen: Embeddings) -> Embeddings:
    """Returns the same embeddings without gradient."""
    found = seen.regions
    return Embeddings(
        seen.global_BD.detach(), None if found is None else Regions(*(tensor.detach() for tensor in found))
    )


def build(model: ModelConfig, objective: ObjectiveConfig) -> FRA:
    """Returns the networks of a configuration, with random weights from PyTorch's global generator.

    Raises:
        ValueError: There is no such backbone, or the projection's width does not fit the mask decoder.
    """
    backbone = build_backbone(model.backbone)
    return FRA(
        backbone,
        feature_dim=backbone.feature_dim,
        num_masks=model.num_masks,
        hidden_dim=model.hidden_dim,
        projection_dim=model.projection_dim,
        dropout=model.dropout,
        query_std=model.query_std,
        objective=objective,
    )
