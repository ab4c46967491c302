"""Conversion of checkpoints to the names and shapes of a timm backbone.

timm's own functions convert the names of original repositories and resize position embeddings.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fra.method import backbone as backbones
from fra.weights.layouts import TIMM, Naming, original_names, recognise

FIRST_LAYER = r"(visual\.conv1|downsample_layers\.0\.0|(visual\.trunk\.)?(patch_embed\.proj|stem\.0))\.weight"
"""Name of the weight of a network's first convolution."""
BLOCK = (
    r"(?:visual\.transformer\.resblocks|(?:visual\.trunk\.)?(?:blocks|stages))\.(\d+)\."
    r"(?!downsample)(?:(?:blocks\.)?(\d+)\.)?.+"
)
"""Name of a weight of a block; groups: block, or stage and block."""
BODY = r"(cls_token|reg_token|dist_token|pos_embed|patch_embed\.|norm_pre\.|stem\.|(blocks|stages)\.\d+\.).*"
"""timm's names of the weights on which a feature map depends; others are final norms and heads."""
HEAD = r"head|norm\.|fc_norm|attn_pool|pre_logits"
"""Beginnings of timm's names of weights that come after the feature map."""
CONVERTED = ("vision_transformer", "eva", "convnext")
"""Modules of timm whose functions convert original names."""


class Summary(NamedTuple):
    """The size of a network: shape of its first convolution, and number of its blocks."""

    first_layer: tuple[int, ...]
    blocks: int

    def __str__(self) -> str:
        return f"a first layer of {self.first_layer} and {self.blocks} blocks"


class Converted(NamedTuple):
    """Weights under timm's names.

    Attributes:
        tensors: The weights.
        naming: The layout of the file.
        left_over: Names of the file that are not part of the backbone; None if the names are timm's own.
        notes: What the user has to know.
    """

    tensors: dict[str, Tensor]
    naming: Naming
    left_over: list[str] | None
    notes: list[str]


def convert(tensors: Mapping[str, Tensor], model_name: str) -> Converted:
    """Converts the weights of a file to the names of a timm model.

    Args:
        tensors: The file's weights.
        model_name: A timm model.

    Raises:
        ValueError: The weights do not fit the model; the message names both sizes.
    """
    naming = recognise(tensors)
    model = skeleton(model_name)
    module = sys.modules[type(model).__module__]
    convertible = module.__name__.rpartition(".")[2] in CONVERTED
    if naming is TIMM and not (convertible and "pos_embed" in tensors):
        return Converted(dict(tensors), naming, None, [])
    if not convertible:
        raise ValueError(f"{model_name} is no model of this kind")
    original, left_over = original_names(tensors, naming)
    own = model.state_dict()
    theirs, ours = summary(original), summary(own)
    if theirs != ours:
        raise ValueError(f"it has {theirs}, {model_name} has {ours}")
    original = _without_zero_biases(original, own)
    grids = _grids(original, model)
    try:
        converted = module.checkpoint_filter_fn(dict(original), model)
    except (KeyError, RuntimeError, AssertionError) as error:
        raise ValueError(f"a weight is not in {model_name} or has another shape there ({error})") from error
    extra = [name for name in converted if name not in own and re.fullmatch(BODY, name)]
    if extra:
        raise ValueError(f"it has {len(extra)} weights that {model_name} lacks, for example {extra[0]}")
    notes = [*([naming.note] if naming.note else []), *grids]
    return Converted(converted, naming, None if naming is TIMM else left_over, notes)


def fitting_models(tensors: Mapping[str, Tensor], model_name: str) -> list[str]:
    """Returns the timm models into which a file's weights fit; those with the same grid of positions first.

    Args:
        tensors: The file's weights.
        model_name: If the names are timm's own, models whose names begin like this one are tried.
    """
    import timm

    naming = recognise(tensors)
    family = naming.models or re.escape("_".join(model_name.split("_")[:2])) + ".*"
    patch = summary(original_names(tensors, naming)[0]).first_layer[-1:]
    fitting: dict[str, bool] = {}
    for name in timm.list_models():
        side = re.search(r"patch(\d+)", name)
        if not re.fullmatch(family, name) or (side and patch and int(side[1]) != patch[0]):
            continue
        try:
            converted = convert(tensors, name)
        except ValueError:
            continue
        if all(
            name in converted.tensors and converted.tensors[name].shape == value.shape
            for name, value in skeleton(name).named_parameters()
            if not re.match(HEAD, name)
        ):
            fitting[name] = any("position" in note for note in converted.notes)
    return sorted(fitting, key=lambda name: fitting[name])


@cache
def skeleton(model_name: str) -> Any:
    """Returns a timm model without a classifier, without memory for its weights, for any image size where it can."""
    import timm

    with torch.device("meta"):
        try:
            return timm.create_model(model_name, num_classes=0, dynamic_img_size=True)
        except TypeError:
            return timm.create_model(model_name, num_classes=0)


def check_image_size(backbone: str, size: int) -> None:
    """Checks that a timm backbone gives a feature map for images of this size.

    Raises:
        ValueError: It does not; the message has sizes that it accepts.
    """
    network = backbones.on_meta(backbone)
    if network is None:  # a few models cannot be built so; the images are then checked where they are used
        return
    if (reason := backbones.refusal(network, size)) and (sizes := backbones.accepted_sizes(network)):
        raise ValueError(
            f"{backbone} does not accept images of {size}×{size} pixels ({reason}); sizes that it accepts: "
            f"{', '.join(map(str, sizes))}: set --image-size"
        )


def summary(tensors: Mapping[str, Tensor]) -> Summary:
    """Returns the size of a network with these weights, under timm's names or the original ones."""
    first = next((value for name, value in tensors.items() if re.fullmatch(FIRST_LAYER, name)), None)
    blocks = {found.groups() for name in tensors if (found := re.fullmatch(BLOCK, name))}
    return Summary(() if first is None else tuple(first.shape), len(blocks))


def _without_zero_biases(original: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without biases of queries, keys and values that are zero, if the model has none (DINOv3)."""
    if any(name.endswith((".attn.qkv.bias", ".attn.q_bias", ".attn.q_proj.bias")) for name in own):
        return dict(original)
    biases = [name for name in original if name.endswith(".attn.qkv.bias")]
    if any(original[name].any() for name in biases):
        raise ValueError(f"it has {len(biases)} weights that the backbone lacks, for example {biases[0]}")
    return {name: value for name, value in original.items() if name not in biases}


def _grids(original: Mapping[str, Tensor], model: Any) -> list[str]:
    """A note if the position embeddings will be resized.

    Raises:
        ValueError: They do not form a square.
    """
    stored = next(
        (
            original[name]
            for name in ("pos_embed", "visual.positional_embedding", "visual.trunk.pos_embed")
            if name in original
        ),
        None,
    )
    if stored is None or getattr(model, "pos_embed", None) is None:
        return []
    patches = stored.shape[-2] - _position_tokens(original, model)
    side = int(patches**0.5)
    if side * side != patches:
        raise ValueError(
            f"its position embeddings {tuple(stored.shape)} have another number of tokens before the patches"
        )
    own = model.patch_embed.grid_size
    if (side, side) == tuple(own):
        return []
    return [f"position embeddings resized from {side}×{side} to {own[0]}×{own[1]} patches"]


def _position_tokens(original: Mapping[str, Tensor], model: Any) -> int:
    """How many position embeddings stand before those of the patches."""
    if "register_tokens" in original:  # DINOv2: for the class token, none for registers
        return 1
    return 0 if getattr(model, "no_embed_class", False) else int(model.num_prefix_tokens)
