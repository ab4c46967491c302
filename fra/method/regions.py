"""Discovery of facial regions without labels: mask embeddings, heatmaps and pooling (arXiv 2403.02138, CVPR 2024).

Shapes: B images, C backbone channels, an H×W feature map, K masks, D projection channels, P = H·W pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fra.method.attention import add_dropout, cross_attention, dropout, dropout_factors, self_attention
from fra.method.losses import full_precision, in_full_precision

CPU = torch.device("cpu")


@lru_cache(maxsize=16)
def sine_position(height: int, width: int, channels: int, device: torch.device = CPU) -> Tensor:
    """Returns the fixed 2-D position encoding of DETR (arXiv 2005.12872): y in the first half of channels, then x.

    Coordinates start at 1 and are divided by the last one + 1e-6 and multiplied by 2π; each half interleaves sine and
    cosine with temperature 10000.

    Args:
        height: Height of the feature map.
        width: Width of the feature map.
        channels: Number of channels, a multiple of 4.
        device: Where the result is kept.

    Returns:
        (channels, height, width), float32. The tensor is cached: do not change it in place.

    Raises:
        ValueError: `channels` is not a positive multiple of 4.
    """
    if channels % 4 or channels <= 0:
        raise ValueError(f"sine_position: channels must be a positive multiple of 4, got {channels}")
    half = channels // 2
    frequency = 10000.0 ** (2 * (torch.arange(half) // 2).double() / half)

    def code(length: int) -> Tensor:
        steps = torch.arange(1, length + 1, dtype=torch.float64) / (length + 1e-6) * 2 * math.pi
        angle = steps[:, None] / frequency
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    y = code(height).T[:, :, None].expand(half, height, width)
    x = code(width).T[:, None, :].expand(half, height, width)
    return torch.cat([y, x]).float().to(device)


@in_full_precision
def cosine_scores(mask_KD: Tensor, pixels_BPD: Tensor) -> Tensor:
    """Returns the cosine of every mask embedding with every pixel projection: (B, K, P), at least float32."""
    pixels_BPD = full_precision(pixels_BPD)
    unit_BKD = F.normalize(full_precision(mask_KD), dim=-1).expand(len(pixels_BPD), -1, -1)
    # Dividing the products by the pixels' norms is cheaper than dividing the pixels.
    norm_BP = torch.linalg.vector_norm(pixels_BPD, dim=-1).clamp_min(1e-12)
    scores_BKP: Tensor = torch.bmm(unit_BKD, pixels_BPD.mT) / norm_BP[:, None]
    return scores_BKP


def heatmaps(scores_BKX: Tensor) -> Tensor:
    """Returns the softmax of scores (B, K, ...) over the masks, plus 1e-7 so that no mask is empty."""
    return scores_BKX.softmax(1) + 1e-7


def pool(features_BPC: Tensor, heatmaps_BKP: Tensor) -> Tensor:
    """Returns the mean of the features weighted by each heatmap: (B, K, C), in the features' precision."""
    share_BKP = heatmaps_BKP / heatmaps_BKP.sum(2, keepdim=True)
    return share_BKP.to(features_BPC.dtype) @ features_BPC


class LayerDropout(NamedTuple):
    """Dropout factors of a decoder layer, by what they are multiplied with; all None without dropout."""

    self_weights: Tensor | None = None
    self_out: Tensor | None = None
    cross_weights: Tensor | None = None
    cross_out: Tensor | None = None
    hidden: Tensor | None = None
    out: Tensor | None = None


class DecoderLayer(nn.Module):
    """A post-norm transformer decoder layer with ReLU and learned query positions, as in DETR."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads)
        self.cross_attn = nn.MultiheadAttention(dim, heads)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self,
        x_BKD: Tensor,
        query_1KD: Tensor,
        pixels_BPD: Tensor,
        position_PD: Tensor,
        factors: LayerDropout,
    ) -> Tensor:
        """Returns the updated queries (B, K, D) after self-attention, cross-attention and feed-forward network.

        Args:
            x_BKD: Content of the queries; B may be 1 where all images have the same.
            query_1KD: Positions of the queries, added to them in both attentions.
            pixels_BPD: Pixels.
            position_PD: Position encoding of the pixels, added to the keys.
            factors: Dropout factors.
        """
        batch = len(x_BKD) if factors.self_weights is None else len(pixels_BPD)
        attended = self_attention(self.self_attn, x_BKD + query_1KD, x_BKD, batch, factors.self_weights)
        x_BKD = self.norm1(add_dropout(x_BKD, attended, factors.self_out))
        attended = cross_attention(
            self.cross_attn, x_BKD + query_1KD, pixels_BPD, position_PD, factors.cross_weights
        )
        x_BKD = self.norm2(add_dropout(x_BKD, attended, factors.cross_out))
        hidden = self.linear2(dropout(F.relu(self.linear1(x_BKD)), factors.hidden))
        result: Tensor = self.norm3(add_dropout(x_BKD, hidden, factors.out))
        return result


class MaskDecoder(nn.Module):
    """Transformer decoder from a feature map to K mask embeddings by learned queries, as in MaskFormer.

    A linear layer in front maps C to D channels and is left out if C = D. It may run in half precision; attention and
    everything after it run in float32.

    Args:
        feature_dim: Number C of backbone channels.
        dim: Width D of the decoder, a multiple of `heads`.
        num_masks: Number K of queries.
        dropout: Dropout probability.
        layers: Number of decoder layers.
        heads: Number of attention heads.

    Raises:
        ValueError: `dim` is not a multiple of `heads`.
    """

    def __init__(
        self, feature_dim: int, dim: int, num_masks: int, dropout: float, layers: int = 2, heads: int = 8
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"projection_dim must be a multiple of the {heads} attention heads, got {dim}")
        self.input_proj = nn.Identity() if feature_dim == dim else nn.Linear(feature_dim, dim)
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Embedding(num_masks, dim)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.mask_embed = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features_BPC: Tensor, height: int, width: int) -> Tensor:
        """Returns the mask embeddings (B, K, D) of a feature map (B, H·W, C)."""
        hidden_BKD = self.hidden(features_BPC, height, width)
        with torch.autocast(hidden_BKD.device.type, enabled=False):
            masks_BKD: Tensor = self.mask_embed[-1](hidden_BKD)
            return masks_BKD

    def hidden(self, features_BPC: Tensor, height: int, width: int) -> Tensor:
        """Returns the input of the last linear layer, (B, K, D), for a feature map (B, H·W, C)."""
        pixels_BPD = full_precision(self.input_proj(features_BPC))
        dim = pixels_BPD.shape[2]
        with torch.autocast(pixels_BPD.device.type, enabled=False):
            position_PD = (
                sine_position(height, width, dim, pixels_BPD.device).flatten(1).T.to(pixels_BPD.dtype)
            )
            query_1KD = self.query.weight[None]
            x_BKD = torch.zeros_like(query_1KD)  # all images start with the same
            for layer, factors in zip(self.layers, self._dropout_factors(pixels_BPD), strict=True):
                x_BKD = layer(x_BKD, query_1KD, pixels_BPD, position_PD, factors)
            hidden_BKD: Tensor = self.mask_embed[:-1](self.norm(x_BKD))
            return hidden_BKD

    def _dropout_factors(self, pixels_BPD: Tensor) -> list[LayerDropout]:
        """Returns the dropout factors of each layer; none in eval mode."""
        if not self.training or self.dropout == 0:
            return [LayerDropout() for _ in self.layers]
        batch, pixels, dim = pixels_BPD.shape
        queries, heads = self.query.num_embeddings, self.heads
        content = (batch, queries, dim)
        self_weights, cross_weights = ((batch * heads, queries, keys) for keys in (queries, pixels))
        shapes = (self_weights, content, cross_weights, content, content, content)
        factors = iter(dropout_factors(self.dropout, shapes * len(self.layers), pixels_BPD))
        return [LayerDropout(*islice(factors, len(shapes))) for _ in self.layers]

    @torch.no_grad()
    def fit_last_layer(self, hidden_KD: Tensor, masks_KD: Tensor) -> None:
        """Fits the last linear layer so that it maps `hidden_KD` to the mask embeddings `masks_KD`.

        The change of the weight has the least Frobenius norm (pseudo-inverse). The fit is exact for linearly
        independent rows of `hidden_KD`, and a least-squares fit otherwise. The more similar the rows are, the larger
        is the change, and the larger the error for inputs that differ from them, such as those under dropout; a larger
        `model.query_std` helps.
        """
        last = self.mask_embed[-1]
        assert isinstance(last, nn.Linear)
        last.weight += (torch.linalg.pinv(hidden_KD) @ (masks_KD - last(hidden_KD))).T
