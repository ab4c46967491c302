from __future__ import annotations

import numpy as np
import pytest
from support import official

from fra.train.schedule import cap_warmup, target_momentum, warmup_cosine


def test_learning_rate_is_the_official_one() -> None:
    epochs, warmup, steps, peak = official.tensor("schedule/cfg").tolist()
    ours = warmup_cosine(peak, int(epochs), int(warmup), int(steps))
    expected = official.tensor("schedule/lr").double().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_learning_rate_reaches_its_peak_at_the_end_of_the_warm_up() -> None:
    rate = warmup_cosine(2.0, epochs=4, warmup_epochs=1, steps_per_epoch=5)
    assert len(rate) == 20
    np.testing.assert_allclose(rate[:6], [0.4, 0.8, 1.2, 1.6, 2.0, 2.0])
    assert np.all(np.diff(rate[5:]) <= 0)


def test_no_warm_up_and_only_warm_up() -> None:
    assert warmup_cosine(1.0, 2, 0, 3).tolist() == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(warmup_cosine(1.0, 2, 2, 2), [0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("sizes", [(0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 1, 0)])
def test_impossible_schedules_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="epoch"):
        warmup_cosine(1.0, *sizes)


@pytest.mark.parametrize("step", [0, 37, 99])
def test_target_momentum_is_the_official_one(step: int) -> None:
    base = official.number("cfg/base_momentum")
    assert target_momentum(base, step, 100) == pytest.approx(
        official.number(f"ema/momentum_{step}_100"), abs=1e-12
    )


def test_a_warm_up_longer_than_the_training_is_capped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert cap_warmup(10, 80, "train") == 10
    assert caplog.text == ""
    assert cap_warmup(10, 2, "train") == 2
    assert "train.warmup_epochs 10 is capped to train.epochs 2" in caplog.text
