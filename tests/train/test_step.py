"""A step never reads a value back from its device and never mixes devices: shown without a GPU by fake tensors.

Fake tensors have a shape, type and device, but no values: reading a value or combining two devices is an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException as ValueReadError
from torch._subclasses.fake_tensor import FakeTensorMode

from fra.bench.training import plain_step as plain
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import FRA, build
from fra.method.regions import sine_position
from fra.train import optim
from fra.train.monitoring.collapse import collapse_indicators
from fra.train.step import TrainStep

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
OPTIMIZERS = {
    "lars": lambda model: optim.lars(model.trained_parameters(), **plain.RECIPE),
    "adamw": lambda model: optim.adamw(model.trained_parameters(), 1e-3, 0.01),
}


@pytest.fixture
def model() -> Iterator[FRA]:
    """Networks for fake tensors."""
    networks = build(ModelConfig("small", num_masks=3, projection_dim=16, hidden_dim=32), ObjectiveConfig())
    sine_position.cache_clear()
    with FakeTensorMode():
        yield networks
    sine_position.cache_clear()


def on(device: torch.device, model: FRA) -> FRA:
    """Returns the networks with fake weights on a device."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            fake = nn.Parameter(torch.empty(weight.shape, device=device), weight.requires_grad)
            setattr(module, name, fake)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))
    model.to = lambda device: model  # type: ignore[method-assign,assignment,misc]  # they are on the device already
    return model


def views(device: torch.device) -> list[Tensor]:
    return [torch.empty(8, 3, 32, 32, device=device) for _ in range(2)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("regional", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_whole_step_reads_no_value(model: FRA, optimizer: str, regional: bool) -> None:
    train_step = TrainStep(on(CPU, model), CPU, torch.bfloat16, accumulation_steps=2)
    chosen = OPTIMIZERS[optimizer](model)
    for _ in range(2):
        output = train_step(*views(CPU), chosen, 0.1, 0.99, 0.9, regional)
        indicators = collapse_indicators(output.embeddings, 0.1)
    assert (output.losses.shape, indicators.shape) == ((4,), (3,))
    with pytest.raises(ValueReadError):
        output.losses.tolist()


def test_the_plain_step_reads_values(model: FRA) -> None:
    networks = on(CPU, model)
    lars = plain.PlainLARS(optim.adaptation_groups(networks.trained_parameters()))
    with pytest.raises(ValueReadError):
        plain.plain_step(networks, lars, *views(CPU))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_on_a_gpu_no_tensor_stays_on_the_cpu(model: FRA, optimizer: str) -> None:
    """All but the backward pass, which needs a real GPU."""
    train_step = TrainStep(on(GPU, model), GPU)
    chosen = OPTIMIZERS[optimizer](train_step.model)
    view1, view2 = views(GPU)
    seen = [model.embed_target(view) for view in (view1, view2)]
    direction = model(view1, *seen)
    for _, weight in model.trained_parameters():
        weight.grad = torch.empty_like(weight)
    chosen.step()
    model.update_target(0.99)
    masks = [one.regions.masks_KD for one in seen if one.regions is not None]
    model.update_prototypes(masks, masks, 0.9)
    results = (direction.total, collapse_indicators(direction.online, 0.1), *model.state_dict().values())
    assert {tensor.device for tensor in results} == {GPU}
    with pytest.raises(RuntimeError, match="device"):
        model(torch.empty(8, 3, 32, 32), *seen)
