"""Names of the official FRA checkpoint, and loading one into our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Our words → the official code's, in this order; a backbone's own names are the same in both.
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


# Present in official checkpoints without being part of the method: a buffer never read, a second name of the
# backbone.
_OFFICIAL_EXTRAS = re.compile(r"^(center$|encoder_q\.)")


class LoadReport(NamedTuple):
    """Which weights were found. `matched` and `missing` are our names, `unexpected` those of the file."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]


def official_name(name: str) -> str:
    """The official checkpoint's name of one of `FRA`'s parameters or buffers."""
    for ours, theirs in _OFFICIAL_NETWORKS:
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    if ".backbone." not in name:
        for ours, theirs in _OFFICIAL_PARTS:
            name = name.replace(ours, theirs)
    return name


def load_official(model: nn.Module, state_dict: Mapping[str, Any]) -> LoadReport:
    """Load the weights of an official FRA checkpoint into a `fra.method.networks.FRA`.

    `state_dict` may be the file's whole content (weights under `state_dict` or `model`) and its names may
    begin with `module.` (DistributedDataParallel). 1×1 convolutions become linear layers, weight for weight.
    Names that are not found keep their present values and are reported. Raises ValueError where nothing
    matches or a shape differs, in which case the model is untouched.
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
