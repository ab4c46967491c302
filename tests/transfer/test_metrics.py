"""Metrics against closed forms, hand-computed curves and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import simpson
from sklearn.metrics import accuracy_score, roc_curve

from fra.transfer import metrics


def test_normalised_mean_error_of_a_shift_is_the_shift_over_the_eye_distance() -> None:
    truth = np.random.default_rng(0).uniform(0, 100, (7, 68, 2))
    truth[:, 36], truth[:, 45] = (10, 20), (40, 60)  # 50 pixels apart
    assert metrics.normalised_mean_error(truth + np.array([3.0, 4.0]), truth) == pytest.approx(5 / 50)


@pytest.mark.parametrize(("points", "left", "right"), [(98, 60, 72), (5, 0, 1)])
def test_other_annotations_have_their_own_eye_corners(points: int, left: int, right: int) -> None:
    truth = np.zeros((1, points, 2))
    truth[:, right] = (0, 8)
    pred = truth + 1.0
    expected = np.hypot(1, 1) / 8
    assert metrics.normalised_mean_error(pred, truth) == pytest.approx(expected)


def test_unknown_annotation_and_unequal_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="21 landmarks"):
        metrics.normalised_mean_error(np.ones((1, 21, 2)), np.ones((1, 21, 2)))
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.normalised_mean_error(np.ones((1, 68, 2)), np.ones((2, 68, 2)))


def test_failure_rate_and_area_of_a_curve_drawn_by_hand() -> None:
    error = np.array([0.02, 0.05, 0.10, 0.30])
    # the curve is 0 up to .02, 1/4 up to .05, 1/2 up to .10: area .03/4 + .05/2 = .0325 of .10
    assert metrics.failure_rate(error, 0.10) == pytest.approx(0.25)
    assert metrics.area_under_curve(error, 0.10) == pytest.approx(0.325)
    assert metrics.cumulative_errors(error, np.array([0.01, 0.02, 0.06, 1.0])) == pytest.approx(
        [0, 0.25, 0.5, 1]
    )


def test_area_agrees_with_simpsons_rule_on_the_sampled_curve() -> None:
    error = np.random.default_rng(1).gamma(4, 0.015, 5000)
    limits = np.arange(0, 0.1 + 5e-5, 1e-4)
    sampled = simpson(metrics.cumulative_errors(error, limits), x=limits) / 0.1
    assert metrics.area_under_curve(error, 0.1) == pytest.approx(sampled, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_as_accurate_as_any_found_by_trying_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    same = generator.random(60) < 0.4
    score = np.round(generator.normal(same * 1.0), 1)  # many equal scores
    tried = [accuracy_score(same, score >= cut) for cut in [*np.unique(score), np.inf]]
    found = accuracy_score(same, score >= metrics.best_threshold(score, same))
    assert found == pytest.approx(max(tried))


def test_ten_folds_take_each_threshold_from_the_others() -> None:
    score = np.array([0.9, 0.1, 0.8, 0.2, 0.7, 0.6])
    same = np.array([1, 0, 1, 0, 0, 1])
    fold = np.array([0, 0, 1, 1, 2, 2])
    # folds 0 and 1: the others are best cut between .2 and .6, so both are right;
    # fold 2: cut between .2 and .8 at .5, which accepts .7 (wrong) and .6 (right)
    assert metrics.fold_accuracies(score, same, fold) == pytest.approx([1, 1, 0.5])
    with pytest.raises(ValueError, match="two folds"):
        metrics.fold_accuracies(score, same, np.zeros(6))


def test_true_accepts_agree_with_the_definition() -> None:
    generator = np.random.default_rng(3)
    same = np.arange(2000) < 1000
    score = generator.normal(same * 2.0)
    for far in (1e-1, 1e-2, 1e-3):
        allowed = np.sort(score[~same])[::-1][int(1000 * far)]  # the first of the others that must be refused
        assert metrics.true_accepts(score, same, far) == pytest.approx(np.mean(score[same] > allowed))
    assert np.isnan(metrics.true_accepts(score, same, 1e-4))
    assert roc_curve(same, score)[1].max() == 1


def test_angles_between_directions() -> None:
    pred = np.array([[1.0, 0, 0], [0, 2, 0], [1, 0, 0], [1, 1, 0]])
    truth = np.array([[3.0, 0, 0], [0, 0, 1], [-1, 0, 0], [1, 0, 0]])
    assert metrics.angular_error(pred, truth) == pytest.approx([0, 90, 180, 45])
    tiny = np.array([[1.0, 1e-6, 0]])
    assert metrics.angular_error(tiny, np.array([[1.0, 0, 0]])) == pytest.approx(np.degrees([1e-6]), rel=1e-6)
