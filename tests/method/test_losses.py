"""Closed forms and invariants of the losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fra.method import losses


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_global_consistency_is_0_alike_2_orthogonal_4_opposed() -> None:
    x = torch.eye(2)
    assert losses.global_consistency(x, 3 * x).item() == pytest.approx(0, abs=1e-6)
    assert losses.global_consistency(x, x.flip(0)).item() == pytest.approx(2)
    assert losses.global_consistency(x, -x).item() == pytest.approx(4)


def test_region_consistency_of_orthogonal_regions_that_agree_is_0() -> None:
    regions = torch.eye(4).expand(3, 4, 4)
    assert losses.region_consistency(regions, regions, 0.02).item() == pytest.approx(0, abs=1e-6)


def test_region_consistency_of_regions_all_alike_costs_the_decorrelation_alone() -> None:
    """All K predictions equal all K targets: distance 0, K − 1 others of cos² 1 each, over K."""
    masks, weight = 5, 0.02
    regions = torch.ones(2, masks, 8)
    expected = weight * (masks - 1) / masks
    assert losses.region_consistency(regions, regions, weight).item() == pytest.approx(expected, abs=1e-6)


def test_region_consistency_with_one_mask_is_global_consistency() -> None:
    pred, target = random(6, 1, 8), random(6, 1, 8, seed=1)
    torch.testing.assert_close(
        losses.region_consistency(pred, target, 0.02), losses.global_consistency(pred[:, 0], target[:, 0])
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_sinkhorn_converges_to_uniform_masks_and_whole_pixels(masks: int, seed: int) -> None:
    probs = random(24, masks, seed=seed).softmax(1)
    assigned = losses.sinkhorn(probs, iterations=200)
    torch.testing.assert_close(assigned.sum(1), torch.ones(24, dtype=torch.float64))
    torch.testing.assert_close(assigned.sum(0), torch.full((masks,), 24 / masks, dtype=torch.float64))


def test_sinkhorn_keeps_pixels_whole_after_any_number_of_iterations() -> None:
    torch.testing.assert_close(losses.sinkhorn(random(9, 4).softmax(1), 1).sum(1), torch.ones(9).double())


def test_sinkhorn_leaves_an_already_uniform_assignment() -> None:
    uniform = torch.full((6, 3), 1 / 3)
    torch.testing.assert_close(losses.sinkhorn(uniform), uniform)


def test_sinkhorn_survives_a_mask_nothing_was_assigned_to() -> None:
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert losses.sinkhorn(probs).tolist() == probs.tolist()


def test_relation_of_a_flat_student_is_log_k() -> None:
    """A student that assigns every pixel evenly: cross-entropy log K, and no entropy missing from its
    mean."""
    masks = 4
    teacher = random(2, masks, 3, 3)
    assert losses.semantic_relation(torch.zeros_like(teacher), teacher).item() == pytest.approx(
        math.log(masks)
    )


def test_relation_of_a_student_that_uses_one_mask_pays_for_the_unused_ones() -> None:
    masks = 4
    student = torch.full((2, masks, 3, 3), -1.0)
    student[:, 0] = 1
    sure = losses.semantic_relation(student, torch.zeros_like(student), student_temp=0.05)
    # cross-entropy with the even teacher: (K − 1) / K × 2 / 0.05; entropy of the mean: 0
    assert sure.item() == pytest.approx((masks - 1) / masks * 2 / 0.05 + math.log(masks), rel=1e-5)


def test_relation_is_blind_to_the_order_of_masks_and_pixels() -> None:
    student, teacher = random(2, 4, 3, 5), random(2, 4, 3, 5, seed=1)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = losses.semantic_relation(student[:, order].flip(0, 3), teacher[:, order].flip(0, 3))
    torch.testing.assert_close(shuffled, losses.semantic_relation(student, teacher))


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = random(2, 4, 3, 3).requires_grad_(), random(2, 4, 3, 3, seed=1).requires_grad_()
    losses.semantic_relation(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_gradients_agree_with_finite_differences() -> None:
    teacher, target = random(2, 3, 2, 2, seed=1), random(2, 3, 4, seed=2)
    assert torch.autograd.gradcheck(
        lambda x: losses.semantic_relation(x, teacher, 0.5, 0.5), random(2, 3, 2, 2).requires_grad_()
    )
    assert torch.autograd.gradcheck(
        lambda x: losses.region_consistency(x, target, 0.5), random(2, 3, 4).requires_grad_()
    )


def test_inputs_are_untouched() -> None:
    inputs = random(3, 4, 2, 2).softmax(1), random(3, 4, 2, 2, seed=1).softmax(1)
    copies = [x.clone() for x in inputs]
    losses.semantic_relation(*inputs)
    losses.sinkhorn(inputs[0][..., 0, 0])
    losses.region_consistency(inputs[0][..., 0], inputs[1][..., 0], 0.1)
    losses.global_consistency(inputs[0][..., 0, 0], inputs[1][..., 0, 0])
    assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


def test_half_precision_inputs_are_computed_in_float32() -> None:
    student, teacher = random(2, 4, 3, 3).bfloat16(), random(2, 4, 3, 3, seed=1).bfloat16()
    loss = losses.semantic_relation(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, losses.semantic_relation(student.float(), teacher.float()))


def test_autocast_does_not_reach_the_losses() -> None:
    """Half-precision products of cosines would round a loss to three digits."""
    student, teacher = random(4, 4, 3, 3).float(), random(4, 4, 3, 3, seed=1).float()
    pred, target = random(4, 5, 8).float(), random(4, 5, 8, seed=1).float()

    def all_losses() -> list[torch.Tensor]:
        return [
            losses.semantic_relation(student, teacher),
            losses.region_consistency(pred, target, 0.02),
            losses.global_consistency(pred[:, 0], target[:, 0]),
        ]

    expected = all_losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [loss.item() for loss in all_losses()] == [loss.item() for loss in expected]


def test_entropy_of_uniform_and_certain() -> None:
    torch.testing.assert_close(losses.entropy(torch.full((8,), 1 / 8)), torch.tensor(math.log(8)))
    assert losses.entropy(F.one_hot(torch.tensor(2), 8).float()).item() == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda: losses.global_consistency(torch.ones(2, 3), torch.ones(3, 3)),
        lambda: losses.region_consistency(torch.ones(2, 3, 4), torch.ones(2, 2, 4), 0.1),
        lambda: losses.semantic_relation(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 5)),
    ],
)
def test_shapes_that_do_not_match_are_named(loss) -> None:
    with pytest.raises(ValueError, match="shapes do not match"):
        loss()


def test_sinkhorn_of_a_map_is_refused() -> None:
    """Its second axis is no axis of masks, over which rows are made to sum to 1."""
    with pytest.raises(ValueError, match=r"expected \(pixels, masks\), got shape \(2, 3, 4, 4\)"):
        losses.sinkhorn(torch.ones(2, 3, 4, 4))
