from __future__ import annotations

import copy

import pytest
import torch

from fra.method import backbone


@pytest.mark.parametrize(
    ("name", "size", "channels", "grid"),
    [
        ("mini", 48, 128, 6),
        ("small", 64, 256, 8),
        ("resnet18", 64, 512, 2),
        pytest.param("resnet34", 64, 512, 2, marks=pytest.mark.slow),
        pytest.param("resnet101", 32, 2048, 1, marks=pytest.mark.slow),
        ("timm:convnext_atto", 64, 320, 2),
        ("timm:vit_tiny_patch16_224", 64, 192, 4),
        pytest.param("timm:swin_tiny_patch4_window7_224", 224, 768, 7, marks=pytest.mark.slow),
    ],
)
def test_feature_map_and_gradients(name: str, size: int, channels: int, grid: int) -> None:
    module = backbone.build(name)
    features = module(torch.randn(2, 3, size, size))
    assert module.feature_dim == channels
    assert features.shape == (2, channels, grid, grid)
    features.square().mean().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []


def test_resnet_weights_have_torchvision_names() -> None:
    names = backbone.build("resnet50").state_dict()
    assert {"conv1.weight", "bn1.running_var", "layer4.2.conv3.weight"} <= names.keys()
    assert not any(name.startswith("fc") for name in names)


@pytest.mark.parametrize("name", ["resnet51", "timm:no_such_model", "timm:hf_hub:timm/resnet18.a1_in1k", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"backbone"):
        backbone.build(name)


VIT = "timm:test_vit"
"""A vision transformer of 6 blocks and 0.4 M parameters for images of 160×160 pixels, of any size here."""


@pytest.mark.parametrize("name", ["mini", "resnet18", VIT])
def test_gradient_checkpointing_keeps_gradients_and_statistics_and_saves_memory(name: str) -> None:
    torch.manual_seed(0)
    plain = backbone.build(name).train()
    recomputing = copy.deepcopy(plain)
    backbone.checkpoint_gradients(recomputing, "train.gradient_checkpointing")
    images, kept = torch.rand(4, 3, 64, 64), {}
    for network in (plain, recomputing):
        sizes: list[int] = []

        def pack(x: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(x.nelement())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            features = network(images)
        features.square().mean().backward()
        kept[network] = sum(sizes)
    assert kept[recomputing] < 0.6 * kept[plain]
    for (key, one), two in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-8, msg=key)
    for (key, one), two in zip(plain.named_buffers(), recomputing.buffers(), strict=True):
        assert torch.equal(one, two), key


def test_layers_are_numbered_from_the_images() -> None:
    vit = backbone.build(VIT).layer_numbers()
    assert {vit["trunk.model.pos_embed"], vit["trunk.model.patch_embed.proj.weight"]} == {0}
    assert vit["trunk.model.blocks.0.norm1.weight"] == 1
    assert max(vit.values()) == len(backbone.build(VIT).trunk.model.blocks)
    mini = backbone.build("mini").layer_numbers()
    assert (mini["stem.0.weight"], mini["layer4.conv1.weight"]) == (0, 4)
    assert set(backbone.build("resnet18").layer_numbers().values()) == {0, 1, 2, 3, 4}


def test_backbones_without_known_layers_or_checkpointing_are_refused_by_name() -> None:
    network = backbone.build("timm:test_efficientnet")
    with pytest.raises(
        ValueError, match="the layers of timm:test_efficientnet are not known: they are those of mini"
    ):
        network.layer_numbers()
    with pytest.raises(
        ValueError, match=r"train\.x: timm:test_efficientnet has batch norms.*: set it to false"
    ):
        backbone.checkpoint_gradients(network, "train.x")


def test_sizes_that_a_backbone_accepts() -> None:
    levit, vit = backbone.on_meta("timm:levit_128s"), backbone.on_meta(VIT)
    assert levit is not None
    assert vit is not None
    assert backbone.accepted_sizes(levit) == [224]
    assert {64, 96, 224, 512} <= set(backbone.accepted_sizes(vit))  # its positions are resized
