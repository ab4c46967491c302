"""The plain step computes what the official code does, and a comparison is complete."""

from __future__ import annotations

import pytest
import torch
from support import official

from fra.bench.training import plain_step as plain
from fra.bench.training.pretraining import compare_training, of_mlperf
from fra.bench.training.regions import compare_regions
from fra.bench.training.step import compare_steps
from fra.method.config import ModelConfig
from fra.train import optim
from fra.train.step import TrainStep
from fra.weights.official import official_name


def test_plain_losses_and_gradients_are_the_official_ones() -> None:
    model = official.networks()
    parts, outputs = plain.plain_losses(model, *official.views())
    for name, key in (
        ("total", "out/loss"),
        ("global", "out/loss_global"),
        ("region", "out/loss_region"),
        ("relation", "out/loss_relation"),
    ):
        torch.testing.assert_close(parts[name].detach(), official.tensor(key), rtol=1e-5, atol=0)
    parts["total"].backward()
    expected = official.under("grad/")
    ours = {official_name(name): p.grad for name, p in model.trained_parameters()}
    assert ours.keys() == expected.keys()
    whole = torch.cat([expected[name].flatten() for name in expected])
    error = torch.cat([ours[name].flatten() for name in expected]) - whole
    assert error.norm() / whole.norm() < 2e-5
    for encoder, one in zip((model.online, model.online, model.target, model.target), outputs, strict=True):
        plain.plain_prototype_update(encoder, one)
    for name in ("online", "target"):
        prototypes = getattr(model, name).region_neck.masks_KD
        torch.testing.assert_close(prototypes, official.tensor(f"out/proto_{name}"), rtol=1e-5, atol=1e-6)


def test_plain_updates_are_the_official_ones() -> None:
    w, b = (torch.nn.Parameter(official.tensor(f"lars/{name}0")) for name in "wb")
    lars = plain.PlainLARS([{"params": [w]}, {"params": [b], "adapt": False}])
    for w.grad, b.grad in zip(official.tensor("lars/grad_w"), official.tensor("lars/grad_b"), strict=True):
        lars.step(lr=0.9, momentum=0.9, weight_decay=1e-2, trust=1e-3)
    torch.testing.assert_close(w.detach(), official.tensor("lars/w5"), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(b.detach(), official.tensor("lars/b5"), rtol=1e-5, atol=1e-6)
    model = official.networks()
    plain.plain_target_update(model, official.number("ema/momentum_37_100"))
    ours = {official_name(name): value for name, value in model.state_dict().items()}
    for name, value in official.under("ema/after/").items():
        torch.testing.assert_close(ours[name].reshape(value.shape), value, rtol=1e-5, atol=1e-7)


def test_both_steps_do_the_same_to_the_weights() -> None:
    """In float32, three steps each, from the same weights and batch."""
    theirs, ours = official.networks(), official.networks()
    view1, view2 = official.views()
    train_step = TrainStep(ours, torch.device("cpu"))
    lars = optim.lars(ours.trained_parameters(), **plain.RECIPE)
    plain_lars = plain.PlainLARS(optim.adaptation_groups(theirs.trained_parameters()))
    for _ in range(3):
        plain.plain_step(theirs, plain_lars, view1, view2)
        train_step(view1, view2, lars, plain.RECIPE["lr"], plain.TARGET_MOMENTUM, plain.PROTOTYPE_MOMENTUM)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


SMALL = ModelConfig("small", num_masks=3, projection_dim=16, hidden_dim=32)


@pytest.mark.slow
def test_comparison() -> None:
    found = compare_steps(SMALL, image_size=32, batch_size=4, rounds=2)
    assert found["ratio"] == pytest.approx(found["ours"] / found["baseline"])
    assert (
        found["flops_per_step"] > 4 * 8 * 20e6
    )  # four images; eight forward passes' worth of a 20 MFLOP network
    assert 0 < found["ours_mfu"] < 1
    assert found["baseline_peak_mib"] > 0


@pytest.mark.slow
def test_the_cost_of_regions() -> None:
    found = compare_regions(SMALL, image_size=32, batch_size=4, rounds=2)
    assert found["ratio"] == pytest.approx(found["ours"] / found["baseline"])
    assert found["cost"] > 1
    assert found["cost_in_flops"] > 1
    # Small networks wait for calls, not for FLOPs: with PyTorch's own attention and dropout there were 3,200.
    assert found["ours_calls"] - found["baseline_calls"] < 2800


@pytest.mark.slow
def test_comparison_end_to_end() -> None:
    found = compare_training(None, SMALL, image_size=16, batch_size=8, images=20, rounds=2)
    assert found["ratio"] == pytest.approx(found["ours"] / found["baseline"])
    assert 0 < found["waiting_share"] < 1
    assert found["images"] == 16  # full batches only
    assert "of_mlperf" not in found  # nothing of that was measured on this processor


def test_the_share_of_mlperf_is_given_for_its_network_alone() -> None:
    assert of_mlperf(1051, "NVIDIA H100 80GB HBM3", "resnet50", 224) == {
        "of_mlperf": pytest.approx(0.4, abs=1e-3)
    }
    assert of_mlperf(1051, "NVIDIA H100 80GB HBM3", "resnet50", 112) == {}
    assert of_mlperf(1051, "NVIDIA A100-SXM4-80GB", "resnet50", 224) == {}


def test_impossible_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="make no batch"):
        compare_training(None, SMALL, image_size=16, batch_size=8, images=4)
    with pytest.raises(ValueError, match="rounds"):
        compare_training(None, SMALL, rounds=0)
    with pytest.raises(ValueError, match="rounds"):
        compare_steps(SMALL, rounds=0)
    with pytest.raises(ValueError, match="unknown backbone"):
        compare_steps(ModelConfig("big"))
