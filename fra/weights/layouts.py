"""Layouts of checkpoints for timm backbones: whose names a file has.

The tables give the original repository's name for each name of Hugging Face transformers. `fra.weights.to_timm`
converts original names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]
"""Pairs of a regular expression that matches a whole name, and its replacement."""

Channels = tuple[float, float, float]
"""One number each for red, green and blue."""
Normalisation = tuple[Channels, Channels]
"""Mean and standard deviation of images (RGB in 0…1)."""
IMAGENET: Normalisation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP: Normalisation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_ATTENTION: Rules = (
    (
        r"(?:encoder\.layer|layers)\.(\d+)\.attention\.(?:attention\.)?([qkv])(?:_proj|uery|ey|alue)\.(.+)",
        r"blocks.\1.attn.\2.\3",
    ),
    (
        r"(?:encoder\.layer|layers)\.(\d+)\.attention\.(?:output\.dense|o_proj)\.(.+)",
        r"blocks.\1.attn.proj.\2",
    ),
)
_EMBEDDINGS: Rules = (
    (r"embeddings\.(cls_token|mask_token)", r"\1"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)", r"patch_embed.proj.\1"),
)
_VIT: Rules = (
    *_EMBEDDINGS,
    *_ATTENTION,
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_before\.(.+)", r"blocks.\1.norm1.\2"),
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_after\.(.+)", r"blocks.\1.norm2.\2"),
    (r"(?:encoder\.layer|layers)\.(\d+)\.(?:intermediate\.dense|mlp\.fc1)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"(?:encoder\.layer|layers)\.(\d+)\.(?:output\.dense|mlp\.fc2)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
)
_DINOV2: Rules = (
    *_EMBEDDINGS,
    *_ATTENTION,
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.+)", r"blocks.\1.mlp.w12.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.(gate|up)_proj\.(.+)", r"blocks.\1.mlp.\2.\3"),
    (r"encoder\.layer\.(\d+)\.mlp\.(?:weights_out|down_proj)\.(.+)", r"blocks.\1.mlp.w3.\2"),
    (r"encoder\.layer\.(\d+)\.(norm[12]|mlp\.fc[12])\.(.+)", r"blocks.\1.\2.\3"),
)
_DINOV3: Rules = (
    *_EMBEDDINGS,
    (r"embeddings\.register_tokens", "storage_tokens"),
    (r"(?:model\.)?layer\.(\d+)\.attention\.([qkv])_proj\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"(?:model\.)?layer\.(\d+)\.attention\.o_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"(?:model\.)?layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"(?:model\.)?layer\.(\d+)\.(norm[12])\.(.+)", r"blocks.\1.\2.\3"),
)
_DINOV3_PLAIN: Rules = (
    *_DINOV3,
    (r"(?:model\.)?layer\.(\d+)\.mlp\.up_proj\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"(?:model\.)?layer\.(\d+)\.mlp\.down_proj\.(.+)", r"blocks.\1.mlp.fc2.\2"),
)
_DINOV3_GATED: Rules = (
    *_DINOV3,
    (r"(?:model\.)?layer\.(\d+)\.mlp\.gate_proj\.(.+)", r"blocks.\1.mlp.w1.\2"),
    (r"(?:model\.)?layer\.(\d+)\.mlp\.up_proj\.(.+)", r"blocks.\1.mlp.w2.\2"),
    (r"(?:model\.)?layer\.(\d+)\.mlp\.down_proj\.(.+)", r"blocks.\1.mlp.w3.\2"),
)
_CLIP_VISION: Rules = (
    (r"embeddings\.class_embedding", "visual.class_embedding"),
    (r"embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"embeddings\.patch_embedding\.weight", "visual.conv1.weight"),
    (r"pre_layrnorm\.(.+)", r"visual.ln_pre.\1"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.+)", r"visual.transformer.resblocks.\1.attn.\2.\3"),
    (
        r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.+)",
        r"visual.transformer.resblocks.\1.attn.out_proj.\2",
    ),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.(.+)", r"visual.transformer.resblocks.\1.ln_\2.\3"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc1\.(.+)", r"visual.transformer.resblocks.\1.mlp.c_fc.\2"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc2\.(.+)", r"visual.transformer.resblocks.\1.mlp.c_proj.\2"),
)
_CONVNEXT: Rules = (
    (r"embeddings\.patch_embeddings\.(.+)", r"downsample_layers.0.0.\1"),
    (r"embeddings\.layernorm\.(.+)", r"downsample_layers.0.1.\1"),
    (r"encoder\.stages\.(\d+)\.downsampling_layer\.(.+)", r"downsample_layers.\1.\2"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer_scale_parameter", r"stages.\1.\2.gamma"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layernorm\.(.+)", r"stages.\1.\2.norm.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.grn\.weight", r"stages.\1.\2.grn.gamma"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.grn\.bias", r"stages.\1.\2.grn.beta"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(dwconv|pwconv[12])\.(.+)", r"stages.\1.\2.\3.\4"),
)
_DINOV3_CONVNEXT: Rules = (
    (r"(?:model\.)?stages\.(\d+)\.downsample_layers\.(.+)", r"downsample_layers.\1.\2"),
    (r"(?:model\.)?stages\.(\d+)\.layers\.(\d+)\.gamma", r"stages.\1.\2.gamma"),
    (r"(?:model\.)?stages\.(\d+)\.layers\.(\d+)\.depthwise_conv\.(.+)", r"stages.\1.\2.dwconv.\3"),
    (r"(?:model\.)?stages\.(\d+)\.layers\.(\d+)\.pointwise_conv([12])\.(.+)", r"stages.\1.\2.pwconv\3.\4"),
    (r"(?:model\.)?stages\.(\d+)\.layers\.(\d+)\.layer_norm\.(.+)", r"stages.\1.\2.norm.\3"),
)


@dataclass(frozen=True)
class Naming:
    """Names of one library's checkpoints.

    Attributes:
        name: Whose names they are.
        found_by: Regular expressions, each of which matches a name of such a file.
        models: Regular expression of the timm models that such a file may fit.
        rules: Conversion to the names of the original repository; names that match none are left over.
        part: Without rules: regular expression of the names that belong to the backbone.
        prefix: Regular expression of the prefixes that a whole model puts before these names.
        normalisation: Mean and standard deviation of its images (RGB in 0…1).
        note: What the user has to know and the file does not say.
    """

    name: str
    found_by: tuple[str, ...]
    models: str
    rules: Rules = ()
    part: str = ""
    prefix: str = ""
    normalisation: Normalisation = IMAGENET
    note: str = ""


_VITS = r"vit_(tiny|small|base|large|huge)_patch\d+_(224|384)"
_CLIPS = r"vit_\w+_clip_(quickgelu_)?\d+"
_DINOV2S = r"vit_\w+_dinov2"
_DINOV3S = r"vit_\w+_dinov3(_qkvb)?"
_CONVNEXTS = r"convnext_(tiny|small|base|large|xlarge)|convnextv2_\w+"
_WRAPPER = r"(vit|dinov2|dinov2_with_registers|dinov3_vit|dinov3_convnext|convnext|convnextv2)\."
_QUICK_GELU = (
    "the file does not say which activation it needs: CLIPs of OpenAI and FaRL need a backbone with 'quickgelu' in its "
    "name, most others of OpenCLIP one without"
)
NAMINGS = (
    Naming(
        "transformers, CLIP",
        found_by=(r"embeddings\.class_embedding", r"pre_layrnorm\.weight"),
        models=_CLIPS,
        rules=_CLIP_VISION,
        prefix=r"(clip\.)?vision_model\.",
        normalisation=CLIP,
        note=_QUICK_GELU,
    ),
    Naming(
        "transformers, DINOv3 ViT with gated MLP",
        found_by=(
            r"(model\.)?layer\.0\.mlp\.gate_proj\.weight",
            r"(model\.)?layer\.0\.layer_scale1\.lambda1",
        ),
        models=_DINOV3S,
        rules=_DINOV3_GATED,
        prefix=_WRAPPER,
    ),
    Naming(
        "transformers, DINOv3 ViT",
        found_by=(r"(model\.)?layer\.0\.layer_scale1\.lambda1",),
        models=_DINOV3S,
        rules=_DINOV3_PLAIN,
        prefix=_WRAPPER,
    ),
    Naming(
        "transformers, DINOv2",
        found_by=(r"encoder\.layer\.0\.layer_scale1\.lambda1",),
        models=_DINOV2S,
        rules=_DINOV2,
        prefix=_WRAPPER,
    ),
    Naming(
        "transformers, ViT or MAE",
        found_by=(r"(encoder\.layer|layers)\.0\.layernorm_before\.weight",),
        models=_VITS,
        rules=_VIT,
        prefix=_WRAPPER,
    ),
    Naming(
        "transformers, ConvNeXt",
        found_by=(r"encoder\.stages\.0\.layers\.0\.dwconv\.weight",),
        models=_CONVNEXTS,
        rules=_CONVNEXT,
        prefix=_WRAPPER,
    ),
    Naming(
        "transformers, DINOv3 ConvNeXt",
        found_by=(r"(model\.)?stages\.0\.layers\.0\.depthwise_conv\.weight",),
        models=_CONVNEXTS,
        rules=_DINOV3_CONVNEXT,
        prefix=_WRAPPER,
    ),
    Naming(
        "OpenAI CLIP, OpenCLIP or FaRL",
        found_by=(r"visual\.class_embedding",),
        models=_CLIPS,
        part=r"visual\.(conv1|class_embedding|positional_embedding|ln_pre|transformer).*",
        normalisation=CLIP,
        note=_QUICK_GELU,
    ),
    Naming(
        "OpenCLIP with a timm model",
        found_by=(r"visual\.trunk\..+",),
        models=f"{_VITS}|{_CLIPS}|{_CONVNEXTS}",
        part=r"visual\.trunk\.(?!norm\.|head|fc_norm).*",
        normalisation=CLIP,
    ),
    Naming(
        "DINOv3 ViT, original",
        found_by=("storage_tokens",),
        models=_DINOV3S,
        part=r"(storage_tokens|cls_token|patch_embed|blocks).*",
    ),
    Naming(
        "MAE, original",
        found_by=("decoder_pos_embed",),
        models=_VITS,
        part=r"(cls_token|pos_embed|patch_embed|blocks).*",
    ),
    Naming(
        "DINOv2, original",
        found_by=("mask_token", r"blocks\.0\.ls1\.gamma"),
        models=_DINOV2S,
        part=r"(register_tokens|cls_token|pos_embed|patch_embed|blocks).*",
    ),
    Naming(
        "ConvNeXt, original",
        found_by=(r"downsample_layers\.0\.0\.weight",),
        models=_CONVNEXTS,
        part=r"(downsample_layers|stages).*",
    ),
)
"""Layouts in the order in which they are tried; files of none of them are expected to have timm's own names."""
TIMM = Naming("timm", found_by=(), models="")


def recognise(names: Mapping[str, Tensor]) -> Naming:
    """Returns the layout of a file with these names; `TIMM` if it is none of `NAMINGS`."""
    for naming in NAMINGS:
        bare = [_bare(name, naming) for name in names]
        if all(any(re.fullmatch(pattern, name) for name in bare) for pattern in naming.found_by):
            return naming
    return TIMM


def original_names(tensors: Mapping[str, Tensor], naming: Naming) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the weights under the original repository's names, and the names that are not part of the backbone."""
    if not naming.rules:
        return dict(tensors), [name for name in tensors if not re.fullmatch(naming.part, name)]
    renamed: dict[str, Tensor] = {}
    left_over: list[str] = []
    for name, value in tensors.items():
        new = _rename(_bare(name, naming), naming.rules)
        if new is None:
            left_over.append(name)
        else:
            renamed[new] = value
    renamed = join(renamed, "attn", ("q", "k", "v"), "qkv")
    renamed = join(renamed, "mlp", ("gate", "up"), "w12")
    if naming.rules is _DINOV2:  # timm recognises DINOv2 by this name
        renamed.setdefault("mask_token", torch.zeros(1))
    return renamed, left_over


def join(tensors: Mapping[str, Tensor], module: str, parts: Sequence[str], whole: str) -> dict[str, Tensor]:
    """Joins the weights of linear layers that the original repository computes as one.

    Args:
        tensors: The weights.
        module: The module with these layers, "attn" or "mlp".
        parts: Their names in order, for example ("q", "k", "v").
        whole: Name of the joined layer, for example "qkv".

    Returns:
        The weights, with joined ones instead of the parts. A bias that only some parts have is zero for the others.
    """
    joined: dict[str, Tensor] = {}
    for name, value in tensors.items():
        found = re.fullmatch(rf"(.+\.{module})\.({'|'.join(parts)})\.(weight|bias)", name)
        if found is None:
            joined[name] = value
            continue
        stem, _, kind = found.groups()
        values = [tensors.get(f"{stem}.{part}.{kind}") for part in parts]
        if kind == "bias":
            values = [torch.zeros_like(value) if one is None else one for one in values]
        present = [one for one in values if one is not None]
        if len(present) == len(parts):
            joined[f"{stem}.{whole}.{kind}"] = torch.cat(present)
    return joined


def _rename(name: str, rules: Rules) -> str | None:
    for pattern, new in rules:
        if (found := re.fullmatch(pattern, name)) is not None:
            return found.expand(new)
    return None


def _bare(name: str, naming: Naming) -> str:
    return re.sub(f"^{naming.prefix}", "", name) if naming.prefix else name
