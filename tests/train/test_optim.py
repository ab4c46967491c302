from __future__ import annotations

import pytest
import torch
from support import official
from torch import nn

from fra.method.backbone import build
from fra.method.networks import FRA
from fra.train import optim


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lars_takes_the_official_steps(dtype: torch.dtype) -> None:
    w, b = (nn.Parameter(official.tensor(f"lars/{name}0", dtype)) for name in "wb")
    lars = optim.LARS(
        [{"params": [w]}, {"params": [b], "adapt": False}], lr=0.9, momentum=0.9, weight_decay=1e-2
    )
    for grad_w, grad_b in zip(
        official.tensor("lars/grad_w", dtype), official.tensor("lars/grad_b", dtype), strict=True
    ):
        w.grad, b.grad = grad_w.clone(), grad_b.clone()
        lars.step()
    torch.testing.assert_close(w.detach(), official.tensor("lars/w5", dtype), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(b.detach(), official.tensor("lars/b5", dtype), rtol=1e-5, atol=1e-6)


def test_lars_first_step_by_hand() -> None:
    """‖w‖ = 5, g = (0, 2): the step is lr · trust · 5 / 2 · g = (0, lr · trust · 5)."""
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    w.grad = torch.tensor([0.0, 2.0])
    optim.LARS([w], lr=0.5, momentum=0.0, trust=0.1).step()
    torch.testing.assert_close(w.detach(), torch.tensor([3.0, 4.0 - 0.5 * 0.1 * 5]))


def test_lars_with_a_zero_weight_or_gradient_is_plain_sgd() -> None:
    zero, still = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
    zero.grad, still.grad = torch.ones(3), torch.zeros(3)
    optim.LARS([zero, still], lr=0.1).step()
    torch.testing.assert_close(zero.detach(), torch.full((3,), -0.1))
    torch.testing.assert_close(still.detach(), torch.ones(3))


def test_lars_leaves_gradients_alone_and_skips_parameters_without() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    used.grad = torch.tensor([1.0, 2.0])
    optim.LARS([used, unused], lr=0.1, weight_decay=0.1).step()
    assert used.grad.tolist() == [1.0, 2.0]
    assert unused.tolist() == [1.0, 1.0]


def test_lars_state_survives_saving() -> None:
    def run(interrupted: bool) -> torch.Tensor:
        w = nn.Parameter(torch.arange(1.0, 5.0))
        lars = optim.LARS([w], lr=0.5, weight_decay=1e-3)
        for step in range(4):
            if interrupted and step == 2:
                saved = lars.state_dict()
                w = nn.Parameter(w.detach().clone())
                lars = optim.LARS([w], lr=9.0)
                lars.load_state_dict(saved)
            w.grad = torch.sin(w.detach() + step)
            lars.step()
        return w.detach()

    assert torch.equal(run(False), run(True))


def test_lars_rejects_a_negative_rate() -> None:
    with pytest.raises(ValueError, match="lr must not be negative"):
        optim.LARS([nn.Parameter(torch.ones(1))], lr=-1.0)


def test_official_exclusions() -> None:
    model = FRA(official.TinyBackbone(), feature_dim=32, num_masks=4, hidden_dim=48, projection_dim=32)
    names = {id(p): name for name, p in model.trained_parameters()}
    kept, excluded = optim.adaptation_groups(model.trained_parameters())
    excluded_names = {names[id(p)] for p in excluded["params"]}
    kept_names = {names[id(p)] for p in kept["params"]}
    assert {
        "online.backbone.bn.weight",
        "online.backbone.bn.bias",
        "online.global_mlp.batch_norm.bias",
    } <= excluded_names
    assert {"online.backbone.conv.weight", "online.global_mlp.batch_norm.weight"} <= kept_names
    assert "online.region_neck.decoder.norm.weight" in kept_names
    assert "online.region_neck.decoder.layers.0.self_attn.in_proj_bias" in excluded_names
    assert excluded["adapt"] is False
    assert kept_names | excluded_names == set(names.values())
    assert not any(name.startswith("target.") for name in names.values())


def test_adamw_decays_matrices_only() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    adamw = optim.adamw(model.named_parameters(), lr=0.1, weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = [p.detach().clone() for p in model.parameters()]
    adamw.step()
    moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert moved == [True, False, False, False]


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_layers_have_decaying_rates(name: str) -> None:
    """The rate of each parameter, as the step sets it, is lr · decay^(layers after it); that of heads is lr."""
    network = nn.Sequential(build("mini"), nn.Linear(128, 2))
    scales = optim.layer_scales(network[0], 0.5, "train.layer_decay", "0.")
    assert optim.layer_scales(network[0], 1.0, "train.layer_decay", "0.") == {}
    named = network.named_parameters()
    optimizer = (
        optim.adamw(named, 0.1, 0.05, scales)
        if name == "adamw"
        else optim.lars(named, 0.1, 0.9, 1e-6, 1e-3, scales)
    )
    optim.set_lr(optimizer, 0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"0.stem": 0.2 / 32, "0.layer1": 0.2 / 16, "0.layer4": 0.2 / 2, "1": 0.2}
    for key, parameter in network.named_parameters():
        for prefix, rate in expected.items():
            if key.startswith(f"{prefix}."):
                assert rates[id(parameter)] == pytest.approx(rate), key
    assert len(rates) == len(list(network.parameters()))
    before = [parameter.clone() for parameter in network.parameters()]
    network[1](network[0](torch.rand(2, 3, 32, 32)).mean((2, 3))).sum().backward()
    optimizer.step()
    assert all(not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def test_layer_decay_is_refused_for_unknown_layers() -> None:
    with pytest.raises(
        ValueError, match=r"train\.layer_decay is 0\.7, but the layers of timm:test_convnext are not"
    ):
        optim.layer_scales(build("timm:test_convnext"), 0.7, "train.layer_decay", "")
