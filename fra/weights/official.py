"""Checkpoints of the official FRA code: their names, and loading one into our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Our names → those of the official code, replaced in this order; names inside a backbone are the same in both.
_OFFICIAL_NETWORKS = (
    ("online.", "online_net."),
    ("target.", "target_net."),
    ("global_predictor.", "predictor."),
    ("region_predictor.", "predictor_obj."),
)


_OFFICIAL_PARTS = (
    (".global_mlp.", ".neck.proj."),
    (".region_neck.pixel_mlp.", ".neck.proj_pixel."),
    (".region_neck.region_mlp.", ".neck.proj_obj."),
    (".region_neck.masks_KD", ".neck.proto"),
    (".region_neck.decoder.layers.", ".neck.proj_attn.transformer.decoder.layers."),
    (".region_neck.decoder.norm.", ".neck.proj_attn.transformer.decoder.norm."),
    (".region_neck.decoder.query.", ".neck.proj_attn.query_embed."),
    (".region_neck.decoder.", ".neck.proj_attn."),
    (".cross_attn.", ".multihead_attn."),
    (".mask_embed.0.", ".mask_embed.layers.0."),
    (".mask_embed.2.", ".mask_embed.layers.1."),
    (".mask_embed.4.", ".mask_embed.layers.2."),
    (".expand.", ".mlp.0."),
    (".batch_norm.", ".mlp.1."),
    (".reduce.", ".mlp.3."),
)


# In official checkpoints, but not part of the method: a buffer that is never read, and an alias of the backbone.
_OFFICIAL_EXTRAS = re.compile(r"^(center$|encoder_q\.)")


class LoadReport(NamedTuple):
    """Result of loading. `matched` and `missing` are our names, `unexpected` names of the file."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]


def is_official(tensors: Mapping[str, Any]) -> bool:
    """Whether names are those of an official FRA checkpoint, which holds online and target network."""
    names = {name.removeprefix("module.") for name in tensors}
    return any(name.startswith("online_net.backbone.") for name in names) and any(
        name.startswith("target_net.") for name in names
    )


def official_name(name: str) -> str:
    """Return the name in official checkpoints of a parameter or buffer of `FRA`."""
    for ours, theirs in _OFFICIAL_NETWORKS:
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    if ".backbone." not in name:
        for ours, theirs in _OFFICIAL_PARTS:
            name = name.replace(ours, theirs)
    return name


def load_official(model: nn.Module, state_dict: Mapping[str, Any]) -> LoadReport:
    """Load the weights of an official FRA checkpoint into a `fra.method.networks.FRA`.

    The 1×1 convolutions of its MLPs become linear layers with the same weights. Parameters that the file lacks keep
    their values and are reported as missing.

    Args:
        model: The model to load into.
        state_dict: Content of the file; weights may be under `state_dict` or `model`, and names may begin with
            `module.` (DistributedDataParallel).

    Raises:
        ValueError: No name matches, or a shape differs; the model is then unchanged.
    """
    for key in ("state_dict", "model"):
        if isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
    theirs = {name.removeprefix("module."): torch.as_tensor(value) for name, value in state_dict.items()}
    loaded: dict[str, Tensor] = {}
    missing: list[str] = []
    for name, own in model.state_dict().items():
        found = theirs.pop(official_name(name), None)
        if found is None:
            missing.append(name)
            continue
        if found.squeeze().shape != own.squeeze().shape:
            raise ValueError(
                f"official weight {official_name(name)!r} is {tuple(found.shape)}, here {tuple(own.shape)}: "
                "build the model with the checkpoint's backbone, num_masks, projection_dim and hidden_dim"
            )
        loaded[name] = found.reshape(own.shape)
    if not loaded:
        raise ValueError(
            f"no name of an official FRA checkpoint among {len(theirs)}, e.g. {sorted(theirs)[:3]}"
        )
    model.load_state_dict(loaded, strict=False)
    unexpected = [name for name in theirs if not _OFFICIAL_EXTRAS.match(name)]
    return LoadReport(list(loaded), missing, unexpected)
