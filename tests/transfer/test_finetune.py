"""Coordinates move with their image, heads and losses are what they say, val chooses the epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fra.method.backbone import build
from fra.transfer import finetune
from fra.transfer.features import Encoder
from fra.transfer.finetune import Examples, FinetuneConfig

STILL = {"rotation": 0.0, "shift": 0.0, "jitter": 0.0, "erase": 0.0}


def test_landmarks_follow_their_image() -> None:
    """A bright dot is found where its landmark went."""
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


def test_directions_do_not_turn_and_nothing_changes_when_nothing_is_asked() -> None:
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


def test_heatmaps_point_where_the_map_is_bright() -> None:
    head = finetune.Heatmaps(1, 2, hidden_dim=4)
    head.up = nn.Sequential(nn.Upsample(scale_factor=4))  # the map itself as heatmap
    bright = torch.zeros(2, 1, 4, 8)
    bright[0, 0, 1, 6] = bright[1, 0, 3, 0] = 50.0
    expected = [[(6 + 0.5) / 8, (1 + 0.5) / 4], [0.5 / 8, (3 + 0.5) / 4]]
    assert head(bright).numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_wing_loss_by_hand() -> None:
    near, far = torch.tensor([[0.05]]), torch.tensor([[0.30]])
    zero = torch.zeros(1, 1)
    assert float(finetune.wing(near, zero)) == pytest.approx(10 * np.log(1 + 5 / 2))
    assert float(finetune.wing(far, zero)) == pytest.approx(30 - (10 - 10 * np.log(1 + 10 / 2)))


def test_unknown_labels_do_not_count() -> None:
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
def test_what_can_be_learnt_is_learnt_and_the_encoder_stays_as_it_was(balanced: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(build("small").eval(), 16, (0.5,) * 3, (0.25,) * 3)
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


def test_the_epoch_of_lowest_validation_loss_is_kept() -> None:
    """Validation labels are turned round: the longer the training the worse, so the first epoch is best."""
    torch.manual_seed(0)
    encoder = Encoder(build("small").eval(), 16, (0.5,) * 3, (0.25,) * 3)
    val = bright_and_dark(20)
    wrong = Examples(val.pixels, val.truth_NO[:, ::-1].copy())
    device, train = torch.device("cpu"), bright_and_dark(64)
    scores = {}
    for epochs in (1, 6):
        config = FinetuneConfig(epochs=epochs, warmup_epochs=0, batch_size=16, lr=1e-3, **STILL)
        scores[epochs] = finetune.fit(encoder, finetune.CLASSES, train, wrong, config, 0, device)(val.pixels)
    assert scores[6] == pytest.approx(scores[1], abs=1e-4)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="warmup_epochs from 0 to epochs; got 3, 256 and 5"):
        FinetuneConfig(epochs=3)
    with pytest.raises(ValueError, match=r"lr is 0\.0"):
        FinetuneConfig(lr=0.0)
