"""Backbones by name, with random weights: images (B, 3, h, w) → a feature map (B, feature_dim, H, W)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SMALL = {"mini": 16, "small": 32}
"""Width of `SmallResNet` by name."""
SIZES = (64, 96, 112, 128, 160, 192, 196, 224, 240, 256, 288, 320, 336, 384, 448, 512, 518)
"""Image sizes that are tried where another one is refused."""
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


class Backbone(nn.Module):
    """A network from images (B, 3, h, w) to a feature map (B, `feature_dim`, H, W)."""

    feature_dim: int
    recomputes = False

    def layer_numbers(self) -> dict[str, int]:
        """Return the number of each parameter's layer by name: 0 is the first one, which reads the images.

        Raises:
            ValueError: The layers of this network are not known.
        """
        raise NotImplementedError

    def checkpoint_gradients(self) -> None:
        """Compute activations again in the backward pass instead of keeping them: same gradients, less memory.

        Raises:
            ValueError: This network does not support it.
        """
        raise NotImplementedError


class _Stages(Backbone):
    """A network of children in sequence, of which `layer1`, `layer2` and so on are a block or a sequence of blocks."""

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Returns the feature map (B, `feature_dim`, H, W)."""
        x = images_B3HW
        recomputes = self.recomputes and torch.is_grad_enabled()
        for name, part in self.named_children():
            if recomputes and name.startswith("layer"):
                for block in part if isinstance(part, nn.Sequential) else (part,):
                    x = _recomputed(block, x)
            else:
                x = part(x)
        return x

    def layer_numbers(self) -> dict[str, int]:
        """Return the stage (1 to 4) of each parameter; 0 before the first stage."""
        found = {name: re.match(r"layer(\d+)\.", name) for name, _ in self.named_parameters()}
        return {name: int(stage[1]) if stage else 0 for name, stage in found.items()}

    def checkpoint_gradients(self) -> None:
        """Keep the inputs of the blocks only."""
        self.recomputes = True


def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """Return block(x), whose activations are computed again in the backward pass."""
    contexts = partial(_contexts, block)
    result: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return result


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """A context in which batch norms do not update their running statistics, which would count a batch twice."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class ResNet(_Stages):
    """A torchvision ResNet without pooling and classifier, with torchvision's parameter names.

    The feature map has 1/32 of the input's height and width.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        whole = _of_torchvision(name)
        self.feature_dim = cast(nn.Linear, whole.get_submodule("fc")).in_features
        for part, module in whole.named_children():
            if part not in ("avgpool", "fc"):
                self.add_module(part, module)


def _of_torchvision(name: str) -> nn.Module:
    """Return a ResNet of torchvision, imported without PyTorch's compiler, which takes as long as PyTorch itself.

    torchvision imports it for one function, which its operator `roi_align` calls on a GPU.
    """

    def is_compile_supported(device: str) -> bool:
        from torch._dynamo.utils import is_compile_supported

        return bool(is_compile_supported(device))

    stand_in = ModuleType("torch._dynamo.utils")
    stand_in.__dict__["is_compile_supported"] = is_compile_supported
    replaced = sys.modules.setdefault(stand_in.__name__, stand_in) is stand_in
    try:
        import torchvision
    finally:
        if replaced:
            del sys.modules[stand_in.__name__]
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model


class BasicBlock(nn.Module):
    """Two convolutions with a shortcut: torchvision's `BasicBlock`, without its import."""

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        shortcut = None
        if stride != 1 or in_dim != out_dim:
            shortcut = nn.Sequential(_conv(in_dim, out_dim, 1, stride), nn.BatchNorm2d(out_dim))
        self.conv1 = _conv(in_dim, out_dim, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_dim)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(out_dim, out_dim, 3)
        self.bn2 = nn.BatchNorm2d(out_dim)
        self.downsample = shortcut

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the features, with 1/`stride` of the input's height and width."""
        out: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x_BCHW)))))
        out += x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        features: Tensor = self.relu(out)
        return features


class SmallResNet(_Stages):
    """A ResNet for CPUs and small images, with 8 · `width` channels and 1/8 of the input's height and width.

    1.2 M parameters at width 32 ("small"), 0.3 M at width 16 ("mini").
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feature_dim = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = BasicBlock(width, width, stride=1)
        self.layer2 = BasicBlock(width, 2 * width, stride=2)
        self.layer3 = BasicBlock(2 * width, 4 * width, stride=2)
        self.layer4 = BasicBlock(4 * width, 8 * width, stride=1)


def _conv(in_dim: int, out_dim: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_dim, out_dim, size, stride, padding=size // 2, bias=False)


class Timm(Backbone):
    """A timm model up to its last feature map; for a vision transformer, the grid of its tokens."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = f"timm:{name}"
        import timm  # the import takes seconds

        create: Any = partial(timm.create_model, name, features_only=True, out_indices=(-1,))
        try:
            # Vision transformers with learned positions accept any image size with this argument only; other
            # models do not have it.
            self.trunk = create(dynamic_img_size=True)
        except TypeError:
            self.trunk = create()
        self.feature_dim = self.trunk.feature_info.channels()[-1]
        self.channels_come_last = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Returns the feature map (B, `feature_dim`, H, W)."""
        features: Tensor = self.trunk(images_B3HW)[-1]
        return features.permute(0, 3, 1, 2) if self.channels_come_last else features

    def layer_numbers(self) -> dict[str, int]:
        """Return the block (from 1) of each parameter of a vision transformer; 0 for patch and position embeddings."""
        found = {
            name: re.match(r"trunk\.model\.blocks\.(\d+)\.", name) for name, _ in self.named_parameters()
        }
        if not any(found.values()):
            raise ValueError(
                f"the layers of {self.name} are not known: they are those of {', '.join([*SMALL, *RESNETS])} and "
                "timm's plain vision transformers (vit_*, deit_*, eva*, beit*)"
            )
        return {name: int(block[1]) + 1 if block else 0 for name, block in found.items()}

    def checkpoint_gradients(self) -> None:
        """Switch on timm's own implementation."""
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules()):
            raise ValueError(
                f"{self.name} has batch norms, which would count each batch twice in timm's checkpointing"
            )
        whole = self.trunk if hasattr(self.trunk, "set_grad_checkpointing") else self.trunk.model
        try:
            whole.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise ValueError(f"{self.name} does not support gradient checkpointing in timm") from None


def build(name: str) -> Backbone:
    """Returns a backbone with random weights from PyTorch's global generator.

    Args:
        name: `mini`, `small`, `resnet18`, `resnet34`, `resnet50`, `resnet101` or `timm:<model>`.

    Raises:
        ValueError: The name is none of these, or names a hub.
    """
    if name in SMALL:
        return SmallResNet(SMALL[name])
    if name in RESNETS:
        return ResNet(name)
    if name.startswith("timm:"):
        if ":" in name.removeprefix("timm:"):
            raise ValueError(f"backbone {name!r}: name one of timm's own models; nothing is read from a hub")
        try:
            return Timm(name.removeprefix("timm:"))
        except RuntimeError as error:
            raise ValueError(
                f"timm has no usable backbone {name.removeprefix('timm:')!r}: {error}"
            ) from error
    raise ValueError(f"unknown backbone {name!r}: use {', '.join([*SMALL, *RESNETS])} or timm:<model>")


def checkpoint_gradients(backbone: nn.Module, parameter: str) -> None:
    """Switches gradient checkpointing on, see `Backbone.checkpoint_gradients`.

    Args:
        backbone: A `Backbone`.
        parameter: Name of the setting, for the message.

    Raises:
        ValueError: The backbone does not support it.
    """
    assert isinstance(backbone, Backbone)
    try:
        backbone.checkpoint_gradients()
    except ValueError as error:
        raise ValueError(f"{parameter}: {error}: set it to false") from None


def on_meta(name: str) -> Backbone | None:
    """Returns a backbone in eval mode without memory for its weights, or None where timm cannot build it so."""
    try:
        with torch.device("meta"):
            return build(name).eval()
    except Exception:  # timm's models raise many types
        return None


def refusal(network: Backbone, size: int) -> str:
    """Returns why a backbone of `on_meta` does not accept images of `size`×`size` pixels; nothing where it does."""
    try:
        with torch.no_grad():
            network(torch.zeros(2, 3, size, size, device="meta"))
    except Exception as error:  # timm's models raise many types
        return str(error) or type(error).__name__
    return ""


def accepted_sizes(network: Backbone) -> list[int]:
    """Returns those of `SIZES` that a backbone of `on_meta` accepts."""
    return [size for size in SIZES if not refusal(network, size)]
