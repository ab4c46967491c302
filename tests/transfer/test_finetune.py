"""Augmentation, heads and losses of fine-tuning; validation subjects choose the epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fra.method.backbone import build
from fra.transfer import finetune
from fra.transfer.config import FinetuneConfig
from fra.transfer.finetune import Examples
from fra.weights.pretrained import PretrainedBackbone

STILL = {"rotation": 0.0, "shift": 0.0, "jitter": 0.0, "erase": 0.0}


def untrained(image_size: int) -> PretrainedBackbone:
    torch.manual_seed(0)
    metadata = {"image_size": image_size, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return PretrainedBackbone(build("small"), metadata).eval()


def test_landmarks_move_with_their_image() -> None:
    """A bright dot is at the moved landmark."""
    torch.manual_seed(0)
    size = 65
    place = torch.rand(8, 2) * 0.4 + 0.3
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    dots = torch.stack([torch.exp(-((x - px) ** 2 + (y - py) ** 2) / 0.002) for px, py in place])
    config = FinetuneConfig(**STILL | {"rotation": 40.0, "shift": 0.1})
    images, moved = finetune.augment((dots[:, None].repeat(1, 3, 1, 1), place), finetune.LANDMARKS, config)
    mass = images[:, 0]
    found = torch.stack([(mass * axis).sum((1, 2)) / mass.sum((1, 2)) for axis in (x, y)], dim=1)
    assert (moved - place).abs().max() > 0.05
    assert found.numpy() == pytest.approx(moved.numpy(), abs=0.01)


def test_directions_are_not_rotated_and_zero_augmentation_is_the_identity() -> None:
    images, truth = torch.rand(4, 3, 16, 16), torch.rand(4, 3)
    config = FinetuneConfig(**STILL | {"rotation": 40.0})
    same, still = finetune.augment((images, truth), finetune.DIRECTIONS, config)
    assert same.numpy() == pytest.approx(images.numpy(), abs=1e-5)
    assert torch.equal(still, truth)


def test_erasing_sets_one_rectangle_of_some_images_to_the_mean() -> None:
    torch.manual_seed(1)
    images, _ = finetune.augment(
        (torch.ones(200, 3, 32, 32), torch.zeros(200, 1)),
        finetune.CLASSES,
        FinetuneConfig(**STILL | {"erase": 0.5}),
    )
    share = (images == 0).float().mean((1, 2, 3))
    assert 60 < (share > 0).sum() < 120  # a few rectangles lie almost outside
    assert share.max() < 0.13


def test_heatmap_mean_is_at_the_maximum() -> None:
    head = finetune.HeatmapRegression(1, 2, hidden_dim=4)
    head.up = nn.Sequential(nn.Upsample(scale_factor=4))  # the map itself as heatmap
    bright = torch.zeros(2, 1, 4, 8)
    bright[0, 0, 1, 6] = bright[1, 0, 3, 0] = 50.0
    expected = [[(6 + 0.5) / 8, (1 + 0.5) / 4], [0.5 / 8, (3 + 0.5) / 4]]
    assert finetune.coordinates(head(bright)).numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_covariance_of_a_gaussian_heatmap() -> None:
    """A Gaussian, wide along one diagonal, as logits."""
    head = finetune.HeatmapRegression(1, 2, hidden_dim=4)
    head.up = nn.Identity()
    wanted = torch.tensor([[0.004, 0.0025], [0.0025, 0.003]])
    axis = (torch.arange(200) + 0.5) / 200
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    far = torch.stack([x - 0.4, y - 0.55], dim=-1)
    logits = -0.5 * torch.einsum("hwi,ij,hwj->hw", far, torch.linalg.inv(wanted), far)
    raw = head(logits[None, None])
    assert finetune.coordinates(raw)[0].numpy() == pytest.approx([0.4, 0.55], abs=1e-4)
    assert finetune.covariances(raw)[0, 0].numpy() == pytest.approx(wanted.numpy(), abs=1e-5)


def heatmap(x: float, y: float, spread: tuple[float, float, float]) -> torch.Tensor:
    """Output of `HeatmapRegression` for one landmark of one image."""
    return torch.tensor([[x, y, *spread]], requires_grad=True)


def test_star_loss_by_hand() -> None:
    """Along its wide direction (x, standard deviation 0.2 of −1 … 1) an error counts half of that along the other."""
    spread = (0.01, 0.0, 0.0025)
    truth = torch.tensor([[0.5, 0.5]])
    along, across = (
        finetune.star(heatmap(*place, spread), truth).detach() for place in ((0.6, 0.5), (0.5, 0.6))
    )
    restriction = 0.04 + 0.01
    error = 0.2 - 0.005  # smooth L1 above β = 0.01
    assert float(along) == pytest.approx(error / 0.2 + restriction, rel=1e-3)
    assert float(across) == pytest.approx(error / 0.1 + restriction, rel=1e-3)


def test_star_loss_is_invariant_to_rotation_and_has_a_gradient_where_both_variances_are_equal() -> None:
    turn = torch.tensor([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]], dtype=torch.float32)
    spread, error, truth = (
        torch.diag(torch.tensor([0.01, 0.001])),
        torch.tensor([0.03, -0.02]),
        torch.zeros(1, 2),
    )
    losses = []
    for matrix, shift in ((spread, error), (turn @ spread @ turn.T, turn @ error)):
        (xx, xy), (_, yy) = matrix.tolist()
        losses.append(float(finetune.star(heatmap(*shift.tolist(), (xx, xy, yy)), truth).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    round_ = heatmap(0.1, 0.2, (0.01, 0.0, 0.01))
    finetune.star(round_, truth).backward()  # type: ignore[no-untyped-call]
    assert round_.grad is not None
    assert torch.isfinite(round_.grad).all()


def test_wing_loss_by_hand() -> None:
    near, far = (torch.tensor([[place, place, 0, 0, 0]]) for place in (0.05, 0.30))
    zero = torch.zeros(1, 2)
    assert float(finetune.wing(near, zero)) == pytest.approx(10 * np.log(1 + 5 / 2))
    assert float(finetune.wing(far, zero)) == pytest.approx(30 - (10 - 10 * np.log(1 + 10 / 2)))


def test_unknown_labels_are_ignored_in_the_loss() -> None:
    raw, truth = torch.randn(5, 3), torch.randint(2, (5, 3)).float()
    truth[0, 1] = truth[3, 2] = float("nan")
    known = ~truth.isnan()
    expected = nn.functional.binary_cross_entropy_with_logits(raw[known], truth[known])
    assert finetune.binary_cross_entropy(raw, truth) == pytest.approx(float(expected))


def bright_and_dark(count: int) -> Examples:
    generator = np.random.default_rng(count)
    label = np.arange(count) % 2
    pixels = np.clip(generator.normal(80 + 60 * label[:, None, None, None], 30, (count, 16, 16, 3)), 0, 255)
    return Examples(pixels.astype(np.uint8), np.eye(2)[label])


@pytest.mark.parametrize("balanced", [False, True])
def test_separable_classes_are_learnt_and_the_encoder_is_unchanged(balanced: bool) -> None:
    encoder = untrained(16)
    before = {name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    config = FinetuneConfig(epochs=4, warmup_epochs=1, batch_size=16, lr=1e-3, balanced=balanced)
    device, test = torch.device("cpu"), bright_and_dark(31)
    fits = [
        finetune.fit(encoder, finetune.CLASSES, bright_and_dark(64), bright_and_dark(20), config, 3, device)
        for _ in range(2)
    ]
    first, second = (predict(test.pixels) for predict in fits)
    assert (first.argmax(axis=1) == test.truth_NO.argmax(axis=1)).mean() > 0.9
    assert first == pytest.approx(second, abs=1e-5)  # seeded
    assert all(torch.equal(value, before[name]) for name, value in encoder.backbone.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("loss", finetune.LANDMARK_LOSSES)
def test_each_landmark_loss_finds_a_dot(loss: str) -> None:
    """After a few epochs the error is far below that of the mean position."""
    encoder = untrained(32)
    parts = [dots(count) for count in (64, 16, 32)]
    config = FinetuneConfig(epochs=12, warmup_epochs=1, batch_size=16, lr=2e-3, landmark_loss=loss, **STILL)
    predict = finetune.fit(encoder, finetune.LANDMARKS, parts[0], parts[1], config, 0, torch.device("cpu"))
    pixels, truth = parts[2]
    error = np.linalg.norm(predict(pixels) - truth, axis=1).mean()
    constant = np.linalg.norm(truth - truth.mean(axis=0), axis=1).mean()
    assert error < 0.4 * constant


def dots(count: int) -> Examples:
    generator = np.random.default_rng(count)
    place = generator.uniform(0.2, 0.8, (count, 2))
    axis = (np.arange(32) + 0.5) / 32
    far = (axis - place[:, :1])[:, None, :] ** 2 + (axis - place[:, 1:])[:, :, None] ** 2
    grey = 40 + 200 * np.exp(-far / 0.004)
    return Examples(np.repeat(grey[..., None], 3, axis=3).astype(np.uint8), place)


def test_epoch_of_lowest_validation_loss_is_kept() -> None:
    """With inverted validation labels longer training is worse, so the first epoch is kept; without, the last one."""
    encoder = untrained(16)
    val = bright_and_dark(20)
    wrong = Examples(val.pixels, val.truth_NO[:, ::-1].copy())
    device, train = torch.device("cpu"), bright_and_dark(64)
    scores = {}
    for epochs in (1, 6):
        config = FinetuneConfig(epochs=epochs, warmup_epochs=0, batch_size=16, lr=1e-3, **STILL)
        scores[epochs] = finetune.fit(encoder, finetune.CLASSES, train, wrong, config, 0, device)(val.pixels)
    assert scores[6] == pytest.approx(scores[1], abs=1e-4)
    last = finetune.fit(encoder, finetune.CLASSES, train, None, config, 0, device)
    assert last.epoch == 6
    assert (last(val.pixels).argmax(axis=1) == val.truth_NO.argmax(axis=1)).mean() > 0.9


def test_divergence_is_an_error_instead_of_an_untrained_head() -> None:
    """At a learning rate far too high no validation loss is finite; without validation images the weights are not."""
    config = FinetuneConfig(epochs=2, warmup_epochs=0, batch_size=8, lr=1e30, **STILL)
    for val, reason in ((bright_and_dark(8), "no epoch has a finite"), (None, "weights are not finite")):
        with pytest.raises(RuntimeError, match=rf"diverged: {reason}.*lower transfer\.finetune\.lr"):
            finetune.fit(
                untrained(16), finetune.CLASSES, bright_and_dark(16), val, config, 0, torch.device("cpu")
            )


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        FinetuneConfig(batch_size=1)
    with pytest.raises(ValueError, match="lr"):
        FinetuneConfig(lr=0.0)
    with pytest.raises(ValueError, match="should be 'wing' or 'star'"):
        FinetuneConfig(landmark_loss="l2")


def fitted(backbone: str = "mini", **settings: object) -> dict[str, torch.Tensor]:
    """Weights after one epoch of two steps."""
    torch.manual_seed(0)
    metadata = {"image_size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    encoder = PretrainedBackbone(build(backbone), metadata).eval()
    config = FinetuneConfig(
        **STILL | {"epochs": 1, "batch_size": 4, "warmup_epochs": 0, "lr": 1e-3} | settings
    )
    data = bright_and_dark(8)
    data = Examples(np.repeat(np.repeat(data.pixels, 2, 1), 2, 2)[:, :32, :32], data.truth_NO)
    done = finetune.fit(encoder, finetune.CLASSES, data, data, config, 0, torch.device("cpu"))
    return {name: value for name, value in done.model.state_dict().items() if value.is_floating_point()}


def test_moving_average_is_kept() -> None:
    """ema 0.75 after two steps is 0.75 · the first weights + 0.25 · the second; ema near 1 keeps the first."""
    first, second, mixed = (fitted(ema=ema) for ema in (1 - 1e-9, 0.0, 0.75))
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_layer_decay_and_gradient_checkpointing_of_a_vision_transformer() -> None:
    """Early layers hardly move; recomputed activations give the same weights; other backbones are refused by name."""
    vit = "timm:test_vit"
    plain, decayed = fitted(vit), fitted(vit, layer_decay=1e-3)
    start = fitted(vit, lr=1e-12)
    early, head = "0.trunk.model.blocks.0.mlp.fc1.weight", "1.linear.weight"
    assert (decayed[early] - start[early]).abs().max() < 1e-7 < (plain[early] - start[early]).abs().max()
    assert (decayed[head] - start[head]).abs().max() > 5e-4
    again = fitted(vit, gradient_checkpointing=True)
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-5, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"transfer\.finetune\.layer_decay is 0\.7, but the layers of timm:test_efficient"
    ):
        fitted("timm:test_efficientnet", layer_decay=0.7)
