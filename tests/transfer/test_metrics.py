"""Metrics compared with scikit-learn, torchmetrics, closed forms and hand-computed curves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from scipy.integrate import simpson
from sklearn import metrics as sk

from fra.transfer import metrics

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Reset the generator, so that a test does not depend on those before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


ONES = np.ones((1, 300))
COUNTS = RNG.poisson(1.0, (4, 300)).astype(float)  # as bootstrap resamples have them
EXACT = {"abs": 1e-6, "rel": 1e-6}


def problem(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Truths 0/1 and scores of 300 samples; "ties": scores take few values."""
    truth = (RNG.random(300) < 0.3).astype(float)
    score = RNG.normal(truth)
    return truth, np.round(score) if kind == "ties" else score


@pytest.mark.parametrize("weight_BN", [ONES, COUNTS], ids=["plain", "resampled"])
def test_classification_agrees_with_scikit_learn(weight_BN: np.ndarray) -> None:
    truth, pred = RNG.integers(4, size=300), RNG.integers(4, size=300)
    for row, weight in enumerate(weight_BN):
        mine = metrics.accuracy(truth, pred, weight_BN)[row]
        assert mine == pytest.approx(sk.accuracy_score(truth, pred, sample_weight=weight), **EXACT)
        mine = metrics.balanced_accuracy(truth, pred, weight_BN)[row]
        assert mine == pytest.approx(sk.balanced_accuracy_score(truth, pred, sample_weight=weight), **EXACT)
        mine = metrics.macro_f1(truth, pred, weight_BN)[row]
        assert mine == pytest.approx(sk.f1_score(truth, pred, average="macro", sample_weight=weight), **EXACT)
        mine = metrics.f1(truth > 1, pred > 1, weight_BN)[row]
        assert mine == pytest.approx(sk.f1_score(truth > 1, pred > 1, sample_weight=weight), **EXACT)


@pytest.mark.parametrize("kind", ["distinct", "ties"])
@pytest.mark.parametrize("weight_BN", [ONES, COUNTS], ids=["plain", "resampled"])
def test_ranking_agrees_with_scikit_learn(kind: str, weight_BN: np.ndarray) -> None:
    truth, score = problem(kind)
    ranking = metrics.rank(metrics.by_score(truth, score), weight_BN)
    for row, weight in enumerate(weight_BN):
        auc = sk.roc_auc_score(truth, score, sample_weight=weight)
        assert metrics.roc_auc(ranking)[row] == pytest.approx(auc, **EXACT)
        precision = sk.average_precision_score(truth, score, sample_weight=weight)
        assert metrics.average_precision(ranking)[row] == pytest.approx(precision, **EXACT)
        far, tar, _ = sk.roc_curve(truth, score, sample_weight=weight, drop_intermediate=False)
        assert metrics.true_accepts(ranking, 0.1)[row] == pytest.approx(tar[far <= 0.1].max(), **EXACT)


def test_metrics_agree_with_torchmetrics() -> None:
    truth, score = problem("distinct")
    p = 1 / (1 + np.exp(-score))
    y, tensor = torch.from_numpy(truth).long(), torch.from_numpy(p)
    ranking = metrics.rank(metrics.by_score(truth, p), ONES)
    assert metrics.roc_auc(ranking)[0] == pytest.approx(float(tm.binary_auroc(tensor, y)), **EXACT)
    expected = float(tm.binary_average_precision(tensor, y))
    assert metrics.average_precision(ranking)[0] == pytest.approx(expected, **EXACT)
    mine = metrics.f1(truth > 0, p > 0.5, ONES)[0]
    assert mine == pytest.approx(float(tm.binary_f1_score(tensor, y)), **EXACT)
    label, pred = torch.from_numpy(RNG.integers(5, size=300)), torch.from_numpy(RNG.integers(5, size=300))
    for mine, average in ((metrics.accuracy, "micro"), (metrics.balanced_accuracy, "macro")):
        other = float(tm.multiclass_accuracy(pred, label, num_classes=5, average=average))
        assert mine(label.numpy(), pred.numpy(), ONES)[0] == pytest.approx(other, **EXACT)
    other = float(tm.multiclass_f1_score(pred, label, num_classes=5, average="macro"))
    assert metrics.macro_f1(label.numpy(), pred.numpy(), ONES)[0] == pytest.approx(other, **EXACT)


def test_true_accepts_by_definition_and_with_too_few_negatives() -> None:
    same = np.arange(2000) < 1000
    score = RNG.normal(same * 2.0)
    ranking = metrics.rank(metrics.by_score(same, score), np.ones((1, 2000)))
    for far in (1e-1, 1e-2, 1e-3):
        refused = np.sort(score[~same])[::-1][int(1000 * far)]  # the first negative above the limit
        assert metrics.true_accepts(ranking, far)[0] == pytest.approx(np.mean(score[same] > refused))
    assert np.isnan(metrics.true_accepts(ranking, 1e-4)).all()


def test_metric_without_samples_of_a_class_is_undefined() -> None:
    ranking = metrics.rank(metrics.by_score(np.ones(5), np.arange(5.0)), np.ones((1, 5)))
    assert np.isnan(metrics.roc_auc(ranking)).all()
    one = np.array([[1.0, 1, 0, 0]])  # only class 0 was drawn
    assert metrics.balanced_accuracy(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), one)[0] == 0.5


def test_normalised_mean_error_of_a_shift_is_the_shift_over_the_eye_distance() -> None:
    truth = RNG.uniform(0, 100, (7, 68, 2))
    truth[:, 36], truth[:, 45] = (10, 20), (40, 60)  # 50 pixels apart
    assert metrics.normalised_mean_error(truth + np.array([3.0, 4.0]), truth) == pytest.approx(5 / 50)


@pytest.mark.parametrize(("points", "right"), [(98, 72), (5, 1)])
def test_other_annotations_have_their_own_eye_corners(points: int, right: int) -> None:
    truth = np.zeros((1, points, 2))
    truth[:, right] = (0, 8)
    assert metrics.normalised_mean_error(truth + 1.0, truth) == pytest.approx(np.hypot(1, 1) / 8)


def test_unknown_annotation_and_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="21 landmarks"):
        metrics.normalised_mean_error(np.ones((1, 21, 2)), np.ones((1, 21, 2)))
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.normalised_mean_error(np.ones((1, 68, 2)), np.ones((2, 68, 2)))


def test_failure_rate_and_area_of_a_hand_computed_curve() -> None:
    error, once = np.array([0.02, 0.05, 0.10, 0.30]), np.ones((1, 4))
    # the curve is 0 up to .02, 1/4 up to .05, 1/2 up to .10: area .03/4 + .05/2 = .0325 of .10
    assert metrics.failure_rate(error, 0.10, once)[0] == pytest.approx(0.25, **EXACT)
    assert metrics.area_under_curve(error, 0.10, once)[0] == pytest.approx(0.325, **EXACT)
    limits = np.array([0.01, 0.02, 0.06, 1.0])
    assert metrics.cumulative_errors(error, limits) == pytest.approx([0, 0.25, 0.5, 1], **EXACT)
    twice = np.array([[2.0, 0, 1, 1]])
    assert metrics.failure_rate(error, 0.05, twice)[0] == pytest.approx(0.5, **EXACT)


def test_area_agrees_with_simpsons_rule_on_the_sampled_curve() -> None:
    error = RNG.gamma(4, 0.015, 5000)
    limits = np.arange(0, 0.1 + 5e-5, 1e-4)
    sampled = simpson(metrics.cumulative_errors(error, limits), x=limits) / 0.1
    assert metrics.area_under_curve(error, 0.1, np.ones((1, 5000)))[0] == pytest.approx(sampled, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_as_accurate_as_any_found_by_trying_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    same = generator.random(60) < 0.4
    score = np.round(generator.normal(same * 1.0), 1)  # many equal scores
    tried = [sk.accuracy_score(same, score >= cut) for cut in [*np.unique(score), np.inf]]
    found = sk.accuracy_score(same, score >= metrics.best_threshold(score, same))
    assert found == pytest.approx(max(tried))


def test_angles_between_directions() -> None:
    pred = np.array([[1.0, 0, 0], [0, 2, 0], [1, 0, 0], [1, 1, 0]])
    truth = np.array([[3.0, 0, 0], [0, 0, 1], [-1, 0, 0], [1, 0, 0]])
    assert metrics.angular_error(pred, truth) == pytest.approx([0, 90, 180, 45])
    tiny = np.array([[1.0, 1e-6, 0]])
    assert metrics.angular_error(tiny, np.array([[1.0, 0, 0]])) == pytest.approx(np.degrees([1e-6]), rel=1e-6)
