"""Finding facial regions without labels: mask embeddings, heatmaps, pooling (CVPR 2024, section 3.2).

Shapes: B images, C backbone channels, an H×W feature map, K masks, D projection channels, P = H·W pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fra.method.losses import full_precision, in_full_precision

CPU = torch.device("cpu")


@lru_cache(maxsize=16)
def sine_position(height: int, width: int, channels: int, device: torch.device = CPU) -> Tensor:
    """Fixed 2-D position code (channels, height, width), float32: y in the first half, x in the second.

    Coordinates count from 1, divided by the last one + 1e-6, times 2π; each half interleaves sine and cosine
    at temperature 10000 (DETR). Made once for a device, which need not be waited for again: not to be changed in
    place. Raises ValueError unless `channels` is a multiple of 4.
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
    """Cosine of every mask embedding with every pixel: (B, K, P), float32."""
    mask_KD = F.normalize(full_precision(mask_KD), dim=-1)
    pixels_BPD = F.normalize(full_precision(pixels_BPD), dim=-1)
    return (pixels_BPD @ mask_KD.T).mT


def heatmaps(scores_BKX: Tensor) -> Tensor:
    """Softmax of the scores over the K masks, + 1e-7 so that no mask is ever empty; same shape as the
    scores."""
    return scores_BKX.softmax(1) + 1e-7


def pool(features_BPC: Tensor, heatmaps_BKP: Tensor) -> Tensor:
    """Mean of the features under each heatmap: (B, K, C), in the features' precision."""
    share_BKP = heatmaps_BKP / heatmaps_BKP.sum(2, keepdim=True)
    return share_BKP.to(features_BPC.dtype) @ features_BPC


class DecoderLayer(nn.Module):
    """One post-norm transformer decoder layer with learned query positions (DETR), ReLU."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BKD: Tensor, query_BKD: Tensor, key_BPD: Tensor, value_BPD: Tensor) -> Tensor:
        query = x_BKD + query_BKD
        attended, _ = self.self_attn(query, query, x_BKD, need_weights=False)
        x_BKD = self.norm1(x_BKD + self.dropout(attended))
        attended, _ = self.cross_attn(x_BKD + query_BKD, key_BPD, value_BPD, need_weights=False)
        x_BKD = self.norm2(x_BKD + self.dropout(attended))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(x_BKD))))
        result: Tensor = self.norm3(x_BKD + self.dropout(hidden))
        return result


class MaskDecoder(nn.Module):
    """K learned queries look at a feature map and return K mask embeddings (MaskFormer's decoder).

    The 1×1 convolution in front is left out where the backbone already has D channels. It may run in half
    precision; attention and everything after it run in float32.
    """

    def __init__(
        self, feature_dim: int, dim: int, num_masks: int, dropout: float, layers: int = 2, heads: int = 8
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"projection_dim must be a multiple of the {heads} attention heads, got {dim}")
        self.input_proj = nn.Identity() if feature_dim == dim else nn.Linear(feature_dim, dim)
        self.query = nn.Embedding(num_masks, dim)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.mask_embed = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features_BPC: Tensor, height: int, width: int) -> Tensor:
        """(B, H·W, C) → mask embeddings (B, K, D)."""
        hidden_BKD = self.hidden(features_BPC, height, width)
        with torch.autocast(hidden_BKD.device.type, enabled=False):
            masks_BKD: Tensor = self.mask_embed[-1](hidden_BKD)
            return masks_BKD

    def hidden(self, features_BPC: Tensor, height: int, width: int) -> Tensor:
        """(B, H·W, C) → what the last layer turns into mask embeddings: (B, K, D)."""
        value_BPD = full_precision(self.input_proj(features_BPC))
        batch, _, dim = value_BPD.shape
        with torch.autocast(value_BPD.device.type, enabled=False):
            position_PD = sine_position(height, width, dim, value_BPD.device).flatten(1).T
            key_BPD = value_BPD + position_PD.to(value_BPD.dtype)
            query_BKD = self.query.weight.expand(batch, -1, -1)
            x_BKD = torch.zeros_like(query_BKD)
            for layer in self.layers:
                x_BKD = layer(x_BKD, query_BKD, key_BPD, value_BPD)
            hidden_BKD: Tensor = self.mask_embed[:-1](self.norm(x_BKD))
            return hidden_BKD

    @torch.no_grad()
    def fit_last_layer(self, hidden_KD: Tensor, masks_KD: Tensor) -> None:
        """Change the last layer as little as it takes to turn `hidden_KD` into the mask embeddings `masks_KD`.

        Least in the Frobenius norm, by the pseudo-inverse; exact where the rows of `hidden_KD` are independent (so
        K ≤ D), else as close as it gets. The more alike these rows are, the larger the change, and the more what
        differs from them, by dropout say, is off: long queries (`model.query_std`) help.
        """
        last = self.mask_embed[-1]
        assert isinstance(last, nn.Linear)
        last.weight += (torch.linalg.pinv(hidden_KD) @ (masks_KD - last(hidden_KD))).T
