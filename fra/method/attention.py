"""Attention of a few queries, and dropout, written for small tensors, where the number of calls costs most.

Shapes: B images, K queries, S keys and values, D channels, N heads of D/N channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def self_attention(
    weights: nn.MultiheadAttention, query_BKD: Tensor, value_BKD: Tensor, batch: int, factor: Tensor | None
) -> Tensor:
    """Returns the attention of the queries to each other; what `nn.MultiheadAttention` returns: (B, K, D).

    Args:
        weights: The module whose projections are used.
        query_BKD: Queries, which are the keys, too; B is 1 where all images have the same.
        value_BKD: Values.
        batch: Batch size of the result.
        factor: Dropout factors (B·N, K, K) of the attention weights.
    """
    dim, heads = weights.embed_dim, weights.num_heads
    query_BKD, key_BKD = F.linear(
        query_BKD, weights.in_proj_weight[: 2 * dim], weights.in_proj_bias[: 2 * dim]
    ).chunk(2, dim=2)
    value_BKD = F.linear(value_BKD, weights.in_proj_weight[2 * dim :], weights.in_proj_bias[2 * dim :])
    query, key, value = (_split_heads(x, batch, heads) for x in (query_BKD, key_BKD, value_BKD))
    return _attend(weights, query, key.mT, value, factor)


def cross_attention(
    weights: nn.MultiheadAttention,
    query_BKD: Tensor,
    pixels_BPD: Tensor,
    position_PD: Tensor,
    factor: Tensor | None,
) -> Tensor:
    """Returns the attention of the queries to pixels; what `nn.MultiheadAttention` returns: (B, K, D).

    Keys are pixels plus positions, values are pixels. Since W (x + p) + b = W x + (W p + b), the positions, which all
    images share, are projected once. Both projections are computed as (D, P) for each image, so that a head is a view.

    Args:
        weights: The module whose projections are used.
        query_BKD: Queries; B is 1 where all images have the same.
        pixels_BPD: Pixels.
        position_PD: Position encoding of the pixels.
        factor: Dropout factors (B·N, K, P) of the attention weights.
    """
    batch, pixels, dim = pixels_BPD.shape
    heads = weights.num_heads
    query_weight, key_weight, value_weight = weights.in_proj_weight.chunk(3)
    query_bias, key_bias, value_bias = weights.in_proj_bias.chunk(3)
    query = _split_heads(F.linear(query_BKD, query_weight, query_bias), batch, heads)
    place_DP = torch.addmm(key_bias[:, None], key_weight, position_PD.T)
    key_BDP = torch.baddbmm(place_DP, key_weight.expand(batch, -1, -1), pixels_BPD.mT)
    value_BDP = torch.baddbmm(value_bias[:, None], value_weight.expand(batch, -1, -1), pixels_BPD.mT)
    key, value = (x.view(batch * heads, dim // heads, pixels) for x in (key_BDP, value_BDP))
    return _attend(weights, query, key, value.mT, factor)


def _split_heads(x_BSD: Tensor, batch: int, heads: int) -> Tensor:
    """Returns (B·N, S, D/N), contiguous, of a batch of B or 1."""
    _, length, dim = x_BSD.shape
    x_BSNd = x_BSD.expand(batch, -1, -1).view(batch, length, heads, dim // heads)
    return x_BSNd.transpose(1, 2).reshape(batch * heads, length, dim // heads)


def _attend(
    weights: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, factor: Tensor | None
) -> Tensor:
    """Returns softmax(Q K / √d) V of every head, then the output projection: (B, K, D).

    Args:
        weights: The module with the output projection.
        query: (B·N, K, d).
        key: (B·N, d, S).
        value: (B·N, S, d).
        factor: Dropout factors (B·N, K, S).
    """
    scores = torch.bmm(query * query.shape[2] ** -0.5, key)
    mixed = torch.bmm(dropout(scores.softmax(-1), factor), value)
    mixed_BKNd = mixed.view(-1, weights.num_heads, *mixed.shape[1:]).transpose(1, 2)
    return F.linear(mixed_BKNd.flatten(2), weights.out_proj.weight, weights.out_proj.bias)


def dropout(x: Tensor, factor: Tensor | None) -> Tensor:
    """Returns `x` times its dropout factors; `x` itself without factors."""
    return x if factor is None else x * factor


def add_dropout(x: Tensor, update: Tensor, factor: Tensor | None) -> Tensor:
    """Returns `x` plus the update times its dropout factors."""
    return x + update if factor is None else torch.addcmul(x, update, factor)


def dropout_factors(probability: float, shapes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor]:
    """Returns random factors for inverted dropout: 0 with the given probability, otherwise 1 / (1 − probability).

    16 random bits decide about each element, all from one call of PyTorch's generator: drawing element by element
    takes ten times as long on a CPU. The probability is rounded to a multiple of 2⁻¹⁶, and so is its scale.

    Args:
        probability: Probability of 0.
        shapes: Shapes of the results.
        like: Tensor with the device and type of the results.
    """
    sizes = [math.prod(shape) for shape in shapes]
    words = torch.empty(-(-sum(sizes) // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    bits = words.view(torch.int16)[: sum(sizes)]
    dropped = round(probability * 2**16)
    factors = torch.empty(sum(sizes), dtype=like.dtype, device=like.device)
    torch.ge(bits, dropped - 2**15, out=factors)  # directly to floating point: booleans are slow
    factors *= 2**16 / (2**16 - dropped)
    return [part.view(shape) for part, shape in zip(torch.split(factors, sizes), shapes, strict=True)]
