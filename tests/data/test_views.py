"""The batched operations compared with torchvision's, and their parameters with the recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from fra.data.views import views
from fra.data.views.config import ViewsConfig
from fra.data.views.crops import crop_box
from fra.data.views.memory import RecycledMemory
from fra.data.views.rng import epoch_key, uniforms
from fra.data.views.views import Crops, Draws, Views

IMAGES = torch.rand(6, 3, 24, 20, generator=torch.Generator().manual_seed(0))
FACTORS = torch.tensor([0.6, 0.8, 1.0, 1.1, 1.3, 1.4])
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (views.brightness, tv.adjust_brightness),
        (views.contrast, tv.adjust_contrast),
        (views.saturation, tv.adjust_saturation),
    ],
)
def test_colour_operations_equal_torchvisions(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    expected = torch.stack([theirs(image, float(f)) for image, f in zip(IMAGES, FACTORS, strict=True)])
    torch.testing.assert_close(ours(IMAGES, FACTORS), expected, atol=2e-3, rtol=0)  # its grey has 4 digits


def test_hue_equals_torchvisions() -> None:
    turns = torch.tensor([-0.1, -0.05, 0.0, 0.03, 0.1, 0.5])
    expected = torch.stack([tv.adjust_hue(image, float(t)) for image, t in zip(IMAGES, turns, strict=True)])
    torch.testing.assert_close(views.hue(IMAGES, turns), expected, atol=1e-5, rtol=0)


def test_blur_equals_torchvisions() -> None:
    sigmas = torch.tensor([0.1, 0.4, 0.8, 1.2, 1.6, 2.0])
    expected = torch.stack(
        [tv.gaussian_blur(image, [13, 13], [float(s)] * 2) for image, s in zip(IMAGES, sigmas, strict=True)]
    )
    torch.testing.assert_close(views.gaussian_blur(IMAGES, sigmas, 2.0), expected, atol=1e-5, rtol=0)


def test_solarize_equals_torchvisions_on_bytes() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    ours = (views.solarize(image.float() / 255) * 255).round().to(torch.uint8)
    assert torch.equal(ours, tv.solarize(image, 128))


def test_parameters_have_the_recipes_distribution() -> None:
    config = ViewsConfig()
    draws = views.draw(config, epoch_key(0, 0), torch.arange(20_000), 1)
    shares = {"flip": 0.5, "jitter": 0.8, "grey": 0.2, "blur": 0.1, "solarize": 0.2}
    for name, share in shares.items():
        assert getattr(draws, name).float().mean().item() == pytest.approx(share, abs=0.015), name
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
        ("sigma", 0.1, 2),
    ):
        values = getattr(draws, name)
        assert low <= values.min() < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.02)
    first = torch.bincount(draws.order[:, 0], minlength=4) / 20_000
    assert (first - 0.25).abs().max() < 0.02


def test_crops_have_torchvisions_distribution() -> None:
    height, width, count = 112, 92, 4000
    key = epoch_key(1, 0)
    ours = np.array([crop_box(key, i, 0, height, width, (0.2, 1.0), (3 / 4, 4 / 3)) for i in range(count)])
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    for column in range(4):
        assert ours[:, column].mean() == pytest.approx(theirs[:, column].mean(), rel=0.04)
        assert ours[:, column].std() == pytest.approx(theirs[:, column].std(), rel=0.06)
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


def test_draws_are_uniform_and_independent() -> None:
    numbers = uniforms(epoch_key(0, 3), np.arange(20_000), 2, 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.allclose(numbers.mean(0), 0.5, atol=0.01)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.03
    other_epoch = uniforms(epoch_key(0, 4), np.arange(20_000), 2, 1)[:, 0]
    assert abs(np.corrcoef(numbers[:, 0], other_epoch)[0, 1]) < 0.03


@pytest.mark.slow
def test_a_view_depends_on_seed_epoch_and_image_alone() -> None:
    crops = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)
    whole = Crops(crops, crops, torch.arange(8))
    part = Crops(crops[5:], crops[5:], torch.arange(5, 8))
    make = Views(ViewsConfig(), seed=4)
    first, second = make(whole, 2, CPU)
    torch.testing.assert_close(make(part, 2, CPU)[0], first[5:])
    assert not torch.equal(first, second)
    assert not torch.equal(make(whole, 3, CPU)[0], first)
    assert not torch.equal(Views(ViewsConfig(), seed=5)(whole, 2, CPU)[0], first)


def test_views_without_augmentation_only_normalise() -> None:
    still = ViewsConfig(
        flip_probability=0,
        jitter_probability=0,
        grey_probability=0,
        blur_probability=(0, 0),
        solarize_probability=(0, 0),
    )
    crops = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    first, second = Views(still, 0)(Crops(crops, crops, torch.arange(2)), 0, CPU)
    expected = views.normalize(crops.permute(0, 3, 1, 2) / 255, still.mean, still.std)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, expected)


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 40), (5, 4)])
def test_compiled_views_equal_the_batched_ones(view: int, height: int, width: int) -> None:
    config = ViewsConfig(grey_probability=0.4, blur_probability=(1.0, 0.5), hue=0.5)
    generator = torch.Generator().manual_seed(view)
    crops = torch.randint(0, 256, (64, height, width, 3), dtype=torch.uint8, generator=generator)
    crops[:8] = crops[:8, :1, :1]  # flat colours: no hue to turn
    crops[8:16] = crops[8:16, :, :, :1]  # greys
    draws = views.draw(config, epoch_key(0, 0), torch.arange(64), view)
    expected = views.photometric(crops, draws, config)
    compiled = views.photometric_on_cpu(crops, draws, config, RecycledMemory())
    # a value next to the threshold of solarising may fall on its other side
    far = (compiled - expected).abs() > 2e-5
    assert far.float().mean() < 2e-4
    assert not far[~draws.solarize].any()


@pytest.mark.parametrize("layout", ["pairs", "channels first"])
def test_compiled_views_do_not_depend_on_the_crops_memory(layout: str) -> None:
    crops = torch.randint(0, 256, (9, 12, 10, 3), dtype=torch.uint8)
    draws = views.draw(ViewsConfig(), epoch_key(0, 0), torch.arange(9), 0)
    moved = torch.stack((crops.flip(0), crops), dim=1)[:, 1]  # as FFCV's batches of two crops of each image
    if layout == "channels first":
        moved = crops.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not moved.is_contiguous()
    expected, made = (
        views.photometric_on_cpu(x, draws, ViewsConfig(), RecycledMemory()) for x in (crops, moved)
    )
    assert torch.equal(made, expected)


def test_batched_views_read_nothing_back_from_the_device() -> None:
    """A meta tensor has no values: reading one raises an error, where a GPU would force a wait."""
    crops = torch.randint(0, 256, (64, 16, 16, 3), dtype=torch.uint8)
    made = Views(ViewsConfig(), seed=0)(Crops(crops, crops, torch.arange(64)), 0, torch.device("meta"))
    assert [(view.device.type, view.shape) for view in made] == [("meta", (64, 3, 16, 16))] * 2


@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_views_do_not_depend_on_threads(threads: int) -> None:
    crops = torch.randint(0, 256, (11, 16, 16, 3), dtype=torch.uint8)
    draws = views.draw(ViewsConfig(), epoch_key(0, 0), torch.arange(11), 0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        whole = views.photometric_on_cpu(crops, draws, ViewsConfig(), RecycledMemory())
    finally:
        torch.set_num_threads(before)
    one = Draws(*(part[:1] for part in draws))
    assert torch.equal(whole[:1], views.photometric_on_cpu(crops[:1], one, ViewsConfig(), RecycledMemory()))


def test_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    memory = RecycledMemory()
    first = memory.empty((4, 3, 8, 8))
    address, part = first.data_ptr(), first[1, 2]
    part.fill_(7)
    del first
    second = memory.empty((4, 3, 8, 8)).fill_(0)
    assert second.data_ptr() != address
    assert part.eq(7).all()
    del part
    assert memory.empty((2, 6, 8, 8)).data_ptr() == address  # another shape of the same size
    assert memory.empty((5, 3, 8, 8)).shape == (5, 3, 8, 8)


def test_a_batch_of_views_keeps_its_values_while_others_are_made() -> None:
    crops = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    batch, make = Crops(crops, crops, torch.arange(3)), Views(ViewsConfig(), seed=0)
    kept = make(batch, 0, CPU)
    before = [view.clone() for view in kept]
    for epoch in range(1, 4):
        make(batch, epoch, CPU)
    assert all(map(torch.equal, kept, before))


@pytest.mark.parametrize(
    "change",
    [{"crop_scale": (0.5, 1.2)}, {"crop_scale": (0.9, 0.2)}, {"hue": 0.7}, {"blur_probability": (1.0, 1.5)}],
)
def test_invalid_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        ViewsConfig(**change)  # type: ignore[arg-type]
