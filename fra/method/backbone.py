"""Backbones by name: (B, 3, h, w) → a feature map (B, feature_dim, H, W), random weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

SMALL = {"mini": 16, "small": 32}
"""Widths of `SmallResNet` by name."""
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


class Backbone(nn.Module):
    """Images (B, 3, h, w) → a feature map (B, `feature_dim`, H, W)."""

    feature_dim: int


class ResNet(Backbone):
    """A torchvision ResNet without pooling and classifier; 1/32 of the input's size. Weight names are
    torchvision's."""

    def __init__(self, name: str) -> None:
        super().__init__()
        whole = torchvision.models.get_model(name, weights=None)
        self.feature_dim = whole.fc.in_features
        for part, module in whole.named_children():
            if part not in ("avgpool", "fc"):
                self.add_module(part, module)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        x = images_B3HW
        for part in self.children():
            x = part(x)
        return x


class SmallResNet(Backbone):
    """A ResNet for CPUs and small faces: 1/8 of the input's size (64 px → 8×8), 8 · `width` channels.

    1.2 M weights at width 32 ("small"), 0.3 M at width 16 ("mini"), where a step takes half the time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feature_dim = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _block(width, width, stride=1)
        self.layer2 = _block(width, 2 * width, stride=2)
        self.layer3 = _block(2 * width, 4 * width, stride=2)
        self.layer4 = _block(4 * width, 8 * width, stride=1)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        x = images_B3HW
        for part in self.children():
            x = part(x)
        return x


def _block(in_dim: int, out_dim: int, stride: int) -> BasicBlock:
    shortcut = None
    if stride != 1 or in_dim != out_dim:
        shortcut = nn.Sequential(conv1x1(in_dim, out_dim, stride), nn.BatchNorm2d(out_dim))
    return BasicBlock(in_dim, out_dim, stride, shortcut)


class Timm(Backbone):
    """The last feature map of a timm model; a vision transformer gives its token grid."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm  # takes seconds: only where it is used

        create: Any = partial(timm.create_model, name, features_only=True, out_indices=(-1,))
        try:
            # Transformers with learned positions take any image size only when told to; others refuse the
            # word.
            self.trunk = create(dynamic_img_size=True)
        except TypeError:
            self.trunk = create()
        self.feature_dim = self.trunk.feature_info.channels()[-1]
        self.channels_come_last = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images_B3HW: Tensor) -> Tensor:
        features: Tensor = self.trunk(images_B3HW)[-1]
        return features.permute(0, 3, 1, 2) if self.channels_come_last else features


def build(name: str) -> Backbone:
    """Backbone by name, with attribute `feature_dim`: `mini`, `small`, `resnet18|34|50|101` or `timm:<model>`.

    Raises ValueError for a name that is none of these.
    """
    if name in SMALL:
        return SmallResNet(SMALL[name])
    if name in RESNETS:
        return ResNet(name)
    if name.startswith("timm:"):
        try:
            return Timm(name.removeprefix("timm:"))
        except RuntimeError as error:
            raise ValueError(
                f"timm has no usable backbone {name.removeprefix('timm:')!r}: {error}"
            ) from error
    raise ValueError(f"unknown backbone {name!r}: use {', '.join([*SMALL, *RESNETS])} or timm:<model>")
