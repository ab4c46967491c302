from __future__ import annotations

import pytest
import torch
from support import official

from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import FRA, build


def tiny(num_masks: int = 4, objective: ObjectiveConfig | None = None, dropout: float = 0.0) -> FRA:
    torch.manual_seed(0)
    return FRA(
        official.TinyBackbone(),
        feature_dim=32,
        num_masks=num_masks,
        hidden_dim=48,
        projection_dim=32,
        dropout=dropout,
        objective=objective,
    )


def views(batch: int = 4, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, size, size, generator=generator),
        torch.randn(batch, 3, size, size, generator=generator),
    )


def test_swapping_the_views_changes_nothing() -> None:
    model = official.networks(torch.float64)
    view1, view2 = official.views(torch.float64)
    one, two = model.losses(view1, view2), model.losses(view2, view1)
    for part in one:
        torch.testing.assert_close(one[part], two[part])


def test_one_direction_at_a_time_gives_the_same_gradient_as_both() -> None:
    both, each = official.networks(torch.float64), official.networks(torch.float64)
    view1, view2 = official.views(torch.float64)
    both.losses(view1, view2)["total"].backward()
    target1, target2 = each.embed_target(view1), each.embed_target(view2)
    each(view1, target1, target2).total.backward()
    each(view2, target2, target1).total.backward()
    for (name, p), (_, q) in zip(both.trained_parameters(), each.trained_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_no_gradient_into_the_target_and_some_into_everything_else() -> None:
    model = tiny(dropout=0.1)
    model.losses(*views())["total"].backward()
    assert all(p.grad is None for p in model.target.parameters())
    assert [name for name, p in model.trained_parameters() if p.grad is None] == []


def test_losses_move_neither_target_nor_prototypes_nor_inputs() -> None:
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = views()
    copies = [view.clone() for view in inputs]
    model.losses(*inputs)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all("running" in name or "num_batches" in name for name in changed)
    assert all(torch.equal(view, copy) for view, copy in zip(inputs, copies, strict=True))


def test_the_target_starts_as_the_online_network_and_is_not_shared() -> None:
    model = tiny()
    for online, target in zip(model.online.parameters(), model.target.parameters(), strict=True):
        assert torch.equal(online, target)
        assert online.data_ptr() != target.data_ptr()


@pytest.mark.parametrize(
    "model",
    [tiny(num_masks=1), tiny(objective=ObjectiveConfig(region_weight=0.0, relation_weight=0.0))],
    ids=["one mask", "no region weights"],
)
def test_byol_baseline_has_no_region_branch(model: FRA) -> None:
    assert not [name for name in model.state_dict() if "region" in name]
    parts = model.losses(*views())
    assert parts["region"].item() == parts["relation"].item() == 0
    assert parts["total"].item() == parts["global"].item() > 0
    parts["total"].backward()
    assert all(p.grad is not None for _, p in model.trained_parameters())
    model.update_prototypes([], [], 0.9)


@pytest.mark.parametrize(
    "weights", [{"region_weight": 0.0}, {"relation_weight": 0.0}, {"global_weight": 0.0}]
)
def test_any_term_may_be_switched_off(weights: dict[str, float]) -> None:
    model = tiny(objective=ObjectiveConfig(**weights))
    parts = model.losses(*views())
    parts["total"].backward()
    assert all(p.grad is not None for _, p in model.trained_parameters())
    expected = parts["global"] + parts["region"] + model.objective.relation_weight * parts["relation"]
    torch.testing.assert_close(parts["total"], expected)


def test_heatmaps_of_one_image_do_not_depend_on_its_neighbours_in_eval() -> None:
    model = tiny().eval()
    images = views()[0]
    together = model.online(images).regions.heatmaps_BKHW
    alone = model.online(images[:1]).regions.heatmaps_BKHW
    torch.testing.assert_close(together[:1], alone)


def test_half_precision_step_stays_close_and_scores_stay_float32() -> None:
    model = tiny()
    full = model.losses(*views())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = model.online(views()[0])
        half = model.losses(*views())
    assert seen.regions.scores_BKHW.dtype == seen.regions.heatmaps_BKHW.dtype == torch.float32
    assert half["total"].dtype == torch.float32
    assert half["total"].item() == pytest.approx(full["total"].item(), rel=0.02)


def test_views_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="views differ"):
        tiny().losses(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 5))


@pytest.mark.parametrize(
    "config",
    [
        lambda: ModelConfig(num_masks=0),
        lambda: ModelConfig(dropout=1.0),
        lambda: ObjectiveConfig(teacher_temp=0.0),
        lambda: ObjectiveConfig(region_weight=-1.0),
        lambda: ObjectiveConfig(global_weight=0, region_weight=0, relation_weight=0),
    ],
)
def test_impossible_configurations_are_refused(config) -> None:
    with pytest.raises(ValueError, match=r"ModelConfig|ObjectiveConfig"):
        config()


def test_a_model_without_masks_is_not_silently_byol() -> None:
    with pytest.raises(ValueError, match=r"num_masks must be at least 1 \(BYOL\), got 0"):
        tiny(num_masks=0)


def test_build_follows_its_configuration() -> None:
    model = build(ModelConfig("small", num_masks=3, projection_dim=16, hidden_dim=32), ObjectiveConfig())
    seen = model.online(torch.randn(2, 3, 64, 64))
    assert seen.regions.heatmaps_BKHW.shape == (2, 3, 8, 8)
    assert seen.global_BD.shape == (2, 16)


def test_long_queries_make_masks_differ_from_the_start() -> None:
    def alike(query_std: float) -> float:
        """Mean cosine of two masks of untrained networks."""
        torch.manual_seed(0)
        sizes = ModelConfig("mini", projection_dim=64, hidden_dim=32, query_std=query_std)
        model = build(sizes, ObjectiveConfig())
        with torch.no_grad():
            masks_KD = model.online(torch.randn(16, 3, 48, 48)).regions.masks_KD
        cosine_KK = torch.nn.functional.cosine_similarity(masks_KD[:, None], masks_KD[None], dim=2)
        return float((cosine_KK.sum() - 8) / 56)

    paper, long = alike(1.0), alike(10.0)
    assert paper > 0.98
    assert 1 - long > 2 * (1 - paper)
