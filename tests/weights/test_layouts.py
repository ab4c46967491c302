"""Checkpoints for timm backbones give the features of the library whose names they have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from fra.weights import pretrained
from fra.weights.convert import Imported, import_weights
from fra.weights.layouts import CLIP, IMAGENET, original_names, recognise
from fra.weights.to_timm import check_image_size, convert, skeleton
from pipelines.cli.main import app

transformers: Any = pytest.importorskip("transformers")


class Case(NamedTuple):
    """A model of transformers and the timm model of the same size."""

    model: str
    config: dict[str, Any]
    backbone: str
    layout: str
    image_size: int = 64


def vit(width: int, depth: int, heads: int, size: int, patch: int = 16, **more: Any) -> dict[str, Any]:
    config = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "image_size": size,
    }
    return config | {"patch_size": patch, "intermediate_size": 4 * width} | more


TEST_VIT = vit(64, 6, 2, 160, intermediate_size=192, layer_norm_eps=1e-6)
ATTO = {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}
CASES = {
    "vit": Case("ViTModel", TEST_VIT, "test_vit", "transformers, ViT or MAE", 160),
    "vit, classifier": Case(
        "ViTForImageClassification", TEST_VIT, "test_vit", "transformers, ViT or MAE", 160
    ),
    "mae": Case(
        "ViTMAEForPreTraining",
        TEST_VIT | {"decoder_num_hidden_layers": 1, "mask_ratio": 0.0},
        "test_vit",
        "transformers, ViT or MAE",
        160,
    ),
    "dinov2": Case(
        "Dinov2Model", vit(384, 12, 6, 518, 14), "vit_small_patch14_dinov2", "transformers, DINOv2", 518
    ),
    "dinov2, registers": Case(
        "Dinov2WithRegistersForImageClassification",
        vit(384, 12, 6, 518, 14),
        "vit_small_patch14_reg4_dinov2",
        "transformers, DINOv2",
        518,
    ),
    "dinov3": Case(
        "DINOv3ViTModel",
        vit(192, 12, 3, 224, num_register_tokens=4),
        "vit_tiny_patch16_dinov3_qkvb",
        "transformers, DINOv3 ViT",
    ),
    "dinov3, gated": Case(
        "DINOv3ViTModel",
        vit(384, 12, 6, 224, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"),
        "vit_small_plus_patch16_dinov3_qkvb",
        "transformers, DINOv3 ViT with gated MLP",
    ),
    "dinov3, zero biases": Case(
        "DINOv3ViTModel",
        vit(384, 12, 6, 224, num_register_tokens=4),
        "vit_small_patch16_dinov3",
        "transformers, DINOv3 ViT",
    ),
    "clip, vision": Case(
        "CLIPVisionModel",
        vit(256, 10, 4, 224, hidden_act="gelu"),
        "vit_xsmall_patch16_clip_224",
        "transformers, CLIP",
        224,
    ),
    "clip": Case(
        "CLIPModel",
        {
            "vision_config": vit(256, 10, 4, 224, hidden_act="gelu"),
            "text_config": {
                "num_hidden_layers": 11,
                "hidden_size": 64,
                "num_attention_heads": 2,
                "vocab_size": 99,
            },
        },
        "vit_xsmall_patch16_clip_224",
        "transformers, CLIP",
        224,
    ),
    "convnext": Case("ConvNextModel", ATTO, "convnext_atto", "transformers, ConvNeXt"),
    "convnext v2": Case(
        "ConvNextV2ForImageClassification", ATTO, "convnextv2_atto", "transformers, ConvNeXt"
    ),
    "dinov3 convnext": Case("DINOv3ConvNextModel", ATTO, "convnext_atto", "transformers, DINOv3 ConvNeXt"),
}


NOT_BACKBONE = (
    r"(vit\.|convnextv2\.|dinov2_with_registers\.|vision_model\.|visual\.(trunk\.)?)?"
    r"(head|norm|fc_norm|ln_post|post_layernorm|layernorm|layer_norm|pooler|classifier)\..*"
    r"|(text_\w+|decoder\w*|transformer|rope_embed)\..*|visual_projection\.weight|logit_scale|.*mask_token|decoder_pos_embed"
)
"""Names that may be left over: final norms, heads, text encoders and decoders."""


def randomise(model: nn.Module) -> None:
    """Give every weight another value, those too that a new model sets to 0 or 1."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


def build(case: Case) -> Any:
    kind = getattr(transformers, case.model)
    model = kind(kind.config_class(**case.config)).eval()
    randomise(model)
    return model


def without_biases(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"[qkv]_proj\.bias", name):
                parameter.zero_()


def last_blocks(model: Any) -> Any:
    """The part of a transformers model whose output is the feature map without the final norm."""
    for part in ("vit", "dinov2_with_registers", "convnextv2", "vision_model"):
        model = getattr(model, part, model)
    body = getattr(model, "encoder", getattr(model, "model", model))
    for part in ("layer", "layers", "stages"):
        if hasattr(body, part):
            return getattr(body, part)[-1]
    raise AssertionError(f"no blocks in {type(model)}")


def features(model: Any, images: Tensor) -> Tensor:
    """Their feature map; for a vision transformer, the grid of its patch tokens."""
    outputs: list[Any] = []
    last_blocks(model).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    own = {}
    if isinstance(model, transformers.ViTMAEForPreTraining):  # patches are shuffled even if none is masked
        side = images.shape[-1] // model.config.patch_size
        own["noise"] = torch.arange(side * side)[None].float()
    with torch.inference_mode():
        network = model.vision_model if isinstance(model, transformers.CLIPModel) else model
        network(images, **own)
    found = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    if found.ndim == 4:
        return found
    config = getattr(model.config, "vision_config", model.config)
    side = images.shape[-1] // config.patch_size
    return found[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))


def same_features(file: Path, backbone: str, expected: Tensor, images: Tensor, out: Path) -> Imported:
    report = import_weights(file, out, f"timm:{backbone}", images.shape[-1])
    assert report.missing == []
    encoder = pretrained.load(out)
    with torch.inference_mode():
        assert torch.allclose(encoder.backbone(images), expected, atol=1e-5, rtol=1e-5)
    return report


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        *(
            pytest.param(
                kind, "of the file", marks=() if kind in ("vit", "mae", "convnext") else pytest.mark.slow
            )
            for kind in CASES
        ),
        ("vit", "of the modules"),
        pytest.param("mae", "of the modules", marks=pytest.mark.slow),
        pytest.param("dinov3", "of the modules", marks=pytest.mark.slow),
    ],
)
def test_models_of_transformers_give_their_own_features(kind: str, names: str, tmp_path: Path) -> None:
    """Files keep the names of older versions of transformers; its modules have others."""
    case = CASES[kind]
    model = build(case)
    if kind == "dinov3, zero biases":
        without_biases(model)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    if names == "of the modules":
        assert set(load_file(file)) != set(model.state_dict())
        save_file({name: value.clone() for name, value in model.state_dict().items()}, file)
    images = torch.rand(1, 3, case.image_size, case.image_size)
    out = tmp_path / "ours.safetensors"
    report = same_features(file, case.backbone, features(model, images), images, out)
    assert report.layout == case.layout
    assert [name for name in report.left_over if not re.fullmatch(NOT_BACKBONE, name)] == []
    metadata = pretrained.read(out).metadata
    expected = CLIP if "clip" in kind else IMAGENET
    assert (tuple(metadata["mean"]), tuple(metadata["std"])) == expected
    assert bool(report.notes) == ("clip" in kind)


def renamed(weights: dict[str, Tensor], *pairs: tuple[str, str]) -> dict[str, Tensor]:
    for pattern, new in pairs:
        weights = {re.sub(pattern, new, name): value for name, value in weights.items()}
    return weights


def openai(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As FaRL's and OpenAI's checkpoints: a CLIP whose text encoder has other blocks."""
    old = renamed(
        {name: value for name, value in weights.items() if not name.startswith("head.")},
        (r"^patch_embed\.proj", "conv1"),
        (r"^blocks", "transformer.resblocks"),
        (r"^norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"\.norm(\d)", r".ln_\1"),
        (r"attn\.qkv\.", "attn.in_proj_"),
        (r"attn\.proj", "attn.out_proj"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
    )
    old["class_embedding"] = old.pop("cls_token")[0, 0]
    old["positional_embedding"] = old.pop("pos_embed")[0]
    text = {f"transformer.resblocks.{block}.ln_1.weight": torch.zeros(8) for block in range(12)}
    return {f"visual.{name}": value for name, value in old.items()} | text | {"logit_scale": torch.ones(())}


def dinov2(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    old = renamed(weights, (r"^reg_token", "register_tokens")) | {"mask_token": torch.zeros(1, 384)}
    if "register_tokens" in old:  # a position embedding of the class token, which timm adds to the token
        first = torch.full((1, 1, 384), 0.25)
        old["pos_embed"] = torch.cat([first, old["pos_embed"]], 1)
        old["cls_token"] = old["cls_token"] - first
    return old


def dinov3(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    old = renamed(weights, (r"^reg_token", "storage_tokens"), (r"gamma_(\d)", r"ls\1.gamma"))
    for name in [name for name in old if name.endswith("q_bias")]:
        q, v = old.pop(name), old.pop(name.replace("q_bias", "v_bias"))
        old[name.replace("q_bias", "qkv.bias")] = torch.cat([q, torch.zeros_like(q), v])
    return old | {"mask_token": torch.zeros(1, 192), "rope_embed.periods": torch.ones(16)}


def mae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    extra = {"mask_token": torch.zeros(1, 1, 32), "decoder_pos_embed": torch.zeros(1, 101, 32)}
    return weights | extra | {"decoder_blocks.0.norm1.weight": torch.zeros(32)}


def convnext(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    old = renamed(
        weights,
        (r"^stem", "downsample_layers.0"),
        (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
        (r"^stages\.(\d)\.blocks", r"stages.\1"),
        (r"mlp\.grn\.weight", "grn.gamma"),
        (r"mlp\.grn\.bias", "grn.beta"),
        (r"mlp\.fc", "pwconv"),
        (r"conv_dw", "dwconv"),
        (r"^head\.norm", "norm"),
        (r"^head\.fc", "head"),
    )
    return {name: original_shape(name, value) for name, value in old.items()}


def original_shape(name: str, value: Tensor) -> Tensor:
    """Linear layers instead of 1×1 convolutions, and parameters of GRN with the axes of an image."""
    if "pwconv" in name and value.ndim == 4:
        return value[..., 0, 0]
    return value[None, None, None] if "grn" in name else value


ORIGINALS: dict[str, tuple[Any, str, int]] = {
    "OpenAI CLIP, OpenCLIP or FaRL": (openai, "vit_xsmall_patch16_clip_224", 224),
    "OpenCLIP with a timm model": (
        lambda weights: {f"visual.trunk.{name}": value for name, value in weights.items()},
        "test_vit",
        160,
    ),
    "DINOv2, original": (dinov2, "vit_small_patch14_dinov2", 56),
    "DINOv2, original; registers": (dinov2, "vit_small_patch14_reg4_dinov2", 56),
    "DINOv3 ViT, original": (dinov3, "vit_tiny_patch16_dinov3_qkvb", 64),
    "MAE, original": (mae, "test_vit", 160),
    "ConvNeXt, original": (convnext, "convnext_atto", 64),
    "ConvNeXt, original; version 2": (convnext, "convnextv2_atto", 64),
    "timm": (dict, "test_vit", 160),
}


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        *(pytest.param(kind, "", marks=pytest.mark.slow if "; " in kind else ()) for kind in ORIGINALS),
        ("MAE, original", "module."),
        pytest.param("timm", "module.", marks=pytest.mark.slow),
    ],
)
def test_original_names_give_the_same_features(kind: str, prefix: str, tmp_path: Path) -> None:
    make, backbone, size = ORIGINALS[kind]
    theirs = timm.create_model(backbone, **({"dynamic_img_size": True} if "vit" in backbone else {})).eval()
    randomise(theirs)
    weights = make(theirs.state_dict())
    file = tmp_path / "theirs.pth"
    torch.save({"model": {f"{prefix}{name}": value for name, value in weights.items()}}, file)
    images = torch.rand(1, 3, size, size)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(images, indices=1, norm=False, intermediates_only=True)[-1]
    report = same_features(file, backbone, expected, images, tmp_path / "ours.safetensors")
    assert report.layout == kind.partition(";")[0]
    assert [name for name in report.left_over if not re.fullmatch(NOT_BACKBONE, name)] == []


def test_the_gated_dinov2_has_the_names_and_shapes_of_timm() -> None:
    """The only one in timm has 1.1 billion weights: shapes only."""
    with torch.device("meta"):
        config = transformers.Dinov2Config(**vit(1536, 40, 24, 518, 14), use_swiglu_ffn=True)
        weights = transformers.Dinov2Model(config).state_dict()
    converted = convert(weights, "vit_giant_patch14_dinov2").tensors
    wanted = {name: value.shape for name, value in skeleton("vit_giant_patch14_dinov2").state_dict().items()}
    found = {name: value.shape for name, value in converted.items()}
    assert {
        name: shape for name, shape in wanted.items() if found.get(name) != shape and "norm." not in name
    } == {}


def test_the_gated_mlp_of_dinov2_gives_its_own_output() -> None:
    ffn = transformers.models.dinov2.modeling_dinov2.Dinov2SwiGLUFFN(
        transformers.Dinov2Config(hidden_size=48)
    )
    weights = {f"encoder.layer.0.mlp.{name}": value for name, value in ffn.state_dict().items()}
    weights["encoder.layer.0.layer_scale1.lambda1"] = torch.ones(48)
    original, left_over = original_names(weights, recognise(weights))
    assert left_over == []
    ours = timm.layers.SwiGLUPacked(48, 256)
    places = {"fc1": "w12", "fc2": "w3"}  # as timm's function has them
    ours.load_state_dict(
        {
            f"{a}.{kind}": original[f"blocks.0.mlp.{b}.{kind}"]
            for a, b in places.items()
            for kind in ("weight", "bias")
        }
    )
    tokens = torch.randn(3, 48)
    assert torch.allclose(ours(tokens), ffn(tokens), atol=1e-5)


def save(folder: Path, weights: dict[str, Tensor]) -> Path:
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "theirs.safetensors")
    return folder / "theirs.safetensors"


def small_dinov2(registers: bool, **more: Any) -> dict[str, Tensor]:
    kind = transformers.Dinov2WithRegistersModel if registers else transformers.Dinov2Model
    return dict(kind(kind.config_class(**vit(384, 12, 6, 518, 14, **more))).state_dict())


@pytest.mark.slow
def test_models_that_fit_are_proposed(tmp_path: Path) -> None:
    file, out = save(tmp_path, small_dinov2(registers=False)), tmp_path / "o.safetensors"
    wrong = (
        r"read as transformers, DINOv2, it has a first layer of \(384, 3, 14, 14\) and 12 blocks, "
        r"vit_base_patch14_dinov2 has a first layer of \(768, 3, 14, 14\) and 12 blocks; "
        r"set --backbone to one that fits: timm:vit_small_patch14_dinov2$"
    )
    with pytest.raises(ValueError, match=wrong):
        import_weights(file, out, "timm:vit_base_patch14_dinov2")
    with pytest.raises(
        ValueError,
        match=r"swin_s3_tiny_224 is no model of this kind; .*vit_small_patch14_dinov2$",
    ):
        import_weights(file, out, "timm:swin_s3_tiny_224")
    with pytest.raises(
        ValueError,
        match=r"are those of transformers, DINOv2; .*fits: timm:vit_small_patch14_dinov2$",
    ):
        import_weights(file, out)
    assert not out.exists()


def test_a_command_records_the_normalisation_and_prints_the_layout(tmp_path: Path) -> None:
    model = build(CASES["vit"])
    model.save_pretrained(tmp_path)
    out = tmp_path / "ours.safetensors"
    arguments = ["--backbone", "timm:test_vit", "--image-size", "160", "--mean", "0.5", "0.5", "0.5"]
    command = ["import-weights", str(tmp_path / "model.safetensors"), "-o", str(out), *arguments]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert not out.exists()
    done = CliRunner().invoke(app, [*command, "--std", "0.4", "0.5", "0.5"])
    assert done.exit_code == 0, done.output
    assert "layout: transformers, ViT or MAE" in done.output
    assert pretrained.read(out).metadata["std"][0] == 0.4


@pytest.mark.slow
def test_weights_that_the_backbone_lacks_are_not_left_out(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    with pytest.raises(
        ValueError, match=r"transformers, DINOv2, .*fits: timm:vit_small_patch14_reg4_dinov2$"
    ):
        import_weights(save(tmp_path, small_dinov2(registers=True)), out, "timm:vit_small_patch14_dinov2")
    dinov3 = transformers.DINOv3ViTModel
    model = dinov3(dinov3.config_class(**vit(384, 12, 6, 224, num_register_tokens=4)))
    randomise(model)
    file = save(tmp_path, dict(model.state_dict()))
    with pytest.raises(
        ValueError, match=r"blocks\.0\.attn\.qkv\.bias; .*fits: timm:vit_small_patch16_dinov3_qkvb$"
    ):
        import_weights(file, out, "timm:vit_small_patch16_dinov3")


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    weights = dict(build(CASES["vit"]).state_dict())
    del weights["layers.3.attention.k_proj.weight"]
    with pytest.raises(
        ValueError,
        match=r"lacks 1 of \d+ weights of timm:test_vit, .*blocks\.3\.attn\.qkv\.weight",
    ):
        import_weights(save(tmp_path, weights), tmp_path / "o.safetensors", "timm:test_vit", 160)


@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_position_embeddings_of_another_grid_are_resized_as_timm_does(layout: str, tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit", img_size=96, num_classes=0)
    if layout == "timm":
        weights = theirs.state_dict()
        grid = weights["pos_embed"]
    else:
        weights = dict(build(CASES["vit"]._replace(config=TEST_VIT | {"image_size": 96})).state_dict())
        grid = weights["embeddings.position_embeddings"]
    report = import_weights(save(tmp_path, weights), tmp_path / "o.safetensors", "timm:test_vit", 160)
    assert report.notes == ("position embeddings resized from 6×6 to 10×10 patches",)
    expected = timm.layers.resample_abs_pos_embed(grid, [10, 10])
    stored = load_file(tmp_path / "o.safetensors")["trunk.model.pos_embed"]
    assert torch.allclose(stored, expected, atol=1e-6)


@pytest.mark.slow
def test_fixed_windows_and_sizes_are_refused_with_those_that_work(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"of 230×230 pixels \(.*\); sizes that it accepts: .*224.*: set --image-size"
    ):
        check_image_size("timm:test_vit", 230)
    with pytest.raises(
        ValueError, match=r"beit_base_patch16_224 does not .* it accepts: 224: set --image-size"
    ):
        check_image_size("timm:beit_base_patch16_224", 256)
    check_image_size("timm:test_vit", 96)
    other = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, window_size=8, img_size=256)
    file = save(tmp_path, other.state_dict())
    message = (
        r"is \(225, 3\), in timm:swin_tiny_patch4_window7_224 it is \(169, 3\); .*made for .* 224×224 pixels"
    )
    with pytest.raises(ValueError, match=message):
        import_weights(file, tmp_path / "o.safetensors", "timm:swin_tiny_patch4_window7_224")


def test_a_prefix_is_read_with_any_layout(tmp_path: Path) -> None:
    """A training checkpoint with two networks, and images normalised in another way."""
    model = build(CASES["vit"])
    weights = {
        f"{network}.{name}": value
        for name, value in model.state_dict().items()
        for network in ("student", "teacher")
    }
    weights |= {f"student.{name}": value + 1 for name, value in model.state_dict().items()}
    file, out = save(tmp_path, weights), tmp_path / "o.safetensors"
    half = (0.5, 0.5, 0.5)
    report = import_weights(file, out, "timm:test_vit", 160, "teacher.", (half, half))
    assert report.layout == "transformers, ViT or MAE, prefix 'teacher.'"
    metadata = pretrained.read(out).metadata
    assert (tuple(metadata["mean"]), tuple(metadata["std"])) == (half, half)
    images = torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        assert torch.allclose(pretrained.load(out).backbone(images), features(model, images), atol=1e-5)
    with pytest.raises(ValueError, match=r"no name begins with 'momentum\.'"):
        import_weights(file, out, "timm:test_vit", 160, "momentum.")
