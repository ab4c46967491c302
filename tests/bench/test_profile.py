from __future__ import annotations

import pytest

from fra.bench.training.profile import profile_step, shares, steps
from fra.method.config import ModelConfig


def test_shares_are_those_of_the_kinds_of_operations() -> None:
    seconds = {"aten::mm": 1.0, "aten::bmm": 2.0, "aten::convolution_backward": 6.0, "aten::add_": 1.0}
    expected = {"convolutions": 0.6, "matrix products": 0.3, "batch norm": 0, "everything else": 0.1}
    assert shares(seconds) == pytest.approx(expected)


@pytest.mark.slow
def test_both_steps_have_convolutions_and_the_same_flops() -> None:
    model = ModelConfig(backbone="mini", hidden_dim=64, projection_dim=16, num_masks=3)
    results = [profile_step(step, repeats=1) for step in steps(model, 32, 4).values()]
    (_, ours, our_shares), (_, plain, plain_shares) = results
    assert ours == pytest.approx(plain, rel=0.05)
    assert min(our_shares["convolutions"], plain_shares["convolutions"]) > 0.05
    assert sum(our_shares.values()) == pytest.approx(1)
