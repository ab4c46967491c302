from __future__ import annotations

import pytest
import torch

from fra.method import backbone


@pytest.mark.parametrize(
    ("name", "size", "channels", "grid"),
    [
        ("mini", 48, 128, 6),
        ("small", 64, 256, 8),
        ("resnet18", 64, 512, 2),
        ("resnet34", 64, 512, 2),
        ("resnet101", 32, 2048, 1),
        ("timm:convnext_atto", 64, 320, 2),
        ("timm:vit_tiny_patch16_224", 64, 192, 4),
        ("timm:swin_tiny_patch4_window7_224", 224, 768, 7),
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
