"""Heads compared with independent solutions, and with missing truths."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from fra.bench.probe import compare_probes
from fra.transfer import heads

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Reset the generator, so that a test does not depend on those before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("dimensions", [12, 300], ids=["more rows", "more features"])
def test_ridge_is_ridge(dimensions: int) -> None:
    x, y, new = (
        RNG.normal(size=(80, dimensions)) + 3,
        RNG.normal(size=(80, 4)),
        RNG.normal(size=(9, dimensions)),
    )
    energy = np.sum((x - x.mean(axis=0)) ** 2) / 80
    for inverse_penalty, predict in zip(
        (0.1, 10.0, 1e3), heads.fit_ridge(x, y, (0.1, 10.0, 1e3)), strict=True
    ):
        assert predict(new) == pytest.approx(
            Ridge(alpha=energy / inverse_penalty).fit(x, y).predict(new), abs=1e-8
        )


def test_ridge_keeps_directions_that_vary_little() -> None:
    spread = np.logspace(0, -4, 64)
    x = (RNG.normal(size=(1000, 64)) * spread @ np.linalg.qr(RNG.normal(size=(64, 64)))[0]).astype(np.float32)
    y = x @ RNG.normal(size=(64, 1)) / spread.mean() + RNG.normal(size=(1000, 1))
    (predict,) = heads.fit_ridge(x, y, (1e4,))
    exact = x.astype(float)
    energy = np.sum((exact - exact.mean(axis=0)) ** 2) / 1000
    wanted = Ridge(alpha=energy / 1e4, solver="svd").fit(exact, y).predict(exact)
    assert predict(x) == pytest.approx(wanted.reshape(-1, 1), abs=1e-3 * y.std())


def test_ridge_recovers_a_linear_map_and_ignores_unknown_rows() -> None:
    x, weight = RNG.normal(size=(200, 10)), RNG.normal(size=(10, 3))
    y = x @ weight + 1.0
    y[:50] = np.nan
    (predict,) = heads.fit_ridge(x, y, (1e9,))
    assert predict(x[:50]) == pytest.approx(x[:50] @ weight + 1.0, abs=1e-5)


def test_neighbours_with_flat_weights_agree_with_scikit_learn() -> None:
    x, y = RNG.normal(size=(60, 8)), RNG.normal(size=(60, 2))
    x = heads.unit(x - x.mean(axis=0))
    (predict,) = heads.fit_neighbours(x, y, (5,))
    new = heads.unit(RNG.normal(size=(7, 8)))
    centred, queries = heads.unit(x - x.mean(axis=0)), heads.unit(new - x.mean(axis=0))

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance**2 / 2) / 0.07)  # of unit vectors: cosine = 1 − d²/2

    other = KNeighborsRegressor(5, weights=weights).fit(centred, y).predict(queries)
    assert predict(new) == pytest.approx(other, abs=1e-6)


def test_neighbours_are_searched_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, new = RNG.normal(size=(60, 8)), RNG.normal(size=(60, 2)), RNG.normal(size=(7, 8))
    (at_once,) = heads.fit_neighbours(x, y, (5,))
    monkeypatch.setattr(heads, "SIMILARITIES", 3 * 60)
    (in_parts,) = heads.fit_neighbours(x, y, (5,))
    assert in_parts(new) == pytest.approx(at_once(new))


def test_neighbours_ignore_unknown_truths() -> None:
    x = np.array([[1.0, 0], [1, 0.1], [-1, 0], [-1, 0.1]])
    y = np.array([[1.0, np.nan], [np.nan, np.nan], [0, 0.25], [0, 0.75]])
    (predict,) = heads.fit_neighbours(x, y, (2,))
    assert predict(x[:1]) == pytest.approx(
        np.array([[1.0, 0.5]])
    )  # second: no neighbour has a truth, so the mean


def test_softmax_separates_classes_and_gives_a_missing_class_probability_0() -> None:
    label = np.repeat([0, 2, 3], 40)
    x = RNG.normal(size=(120, 5)) + 4 * np.eye(5)[label]
    (predict,) = heads.fit_softmax(x, np.eye(4)[label], (100.0,))
    p = predict(x)
    assert p.shape == (120, 4)
    assert p.sum(axis=1) == pytest.approx(1)
    assert (p[:, 1] == 0).all()
    assert (p.argmax(axis=1) == label).mean() > 0.95


def test_sigmoids_learn_each_label_from_its_known_rows() -> None:
    x = RNG.normal(size=(200, 6))
    y = (x[:, :2] > 0).astype(float)
    y[::3, 0] = np.nan
    (predict,) = heads.fit_sigmoids(x, y, (100.0,))
    assert ((predict(x) > 0.5) == (x[:, :2] > 0)).mean() > 0.95
    with pytest.raises(ValueError, match="label number 1"):
        heads.fit_sigmoids(x, np.column_stack([y[:, 0], np.full(200, np.nan)]), (1.0,))


@pytest.mark.parametrize("dimensions", [12, 300], ids=["more rows", "more features"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoids_are_logistic_regressions_of_each_label(dimensions: int, dtype: type) -> None:
    x, new = (
        (RNG.normal(size=(rows, dimensions)) @ RNG.normal(size=(dimensions, dimensions)) + 3).astype(dtype)
        for rows in (80, 9)
    )
    y = (x[:, :4] + RNG.normal(size=(80, 4)) * 20 > np.array([0, 10, 20, 30])).astype(float)
    grid = (0.01, 1.0, 100.0)
    scaler = StandardScaler().fit(x.astype(float))
    for inverse_penalty, predict in zip(grid, heads.fit_sigmoids(x, y, grid), strict=True):
        for label, p_M in enumerate(predict(new).T):
            model = LogisticRegression(C=inverse_penalty / 80, tol=1e-9, max_iter=100_000)
            model.fit(scaler.transform(x.astype(float)), y[:, label])
            wanted = model.predict_proba(scaler.transform(new.astype(float)))[:, 1]
            assert p_M == pytest.approx(wanted, abs=5e-3)


def test_constant_label_is_predicted_as_constant() -> None:
    x = RNG.normal(size=(50, 6)).astype(np.float32)
    changing = (x[:, 0] > 0).astype(float)
    x[:, 0] += changing  # no row is so near to the border that the penalty may put it on the other side
    never, always = np.zeros(50), np.where(changing, 1.0, np.nan)
    (predict,) = heads.fit_sigmoids(x, np.column_stack([never, changing, always]), (1000.0,))
    assert (predict(x)[:, [0, 2]] == [0, 1]).all()
    assert ((predict(x)[:, 1] > 0.5) == changing).all()
    (predict,) = heads.fit_sigmoids(x, np.column_stack([never, always]), (1.0,))
    assert (predict(x) == [0, 1]).all()


def test_constant_features_give_the_base_rate() -> None:
    y = np.array([[1.0], [0.0], [0.0], [0.0]])
    (predict,) = heads.fit_sigmoids(np.ones((4, 3), np.float32), y, (1.0,))
    assert predict(np.ones((2, 3), np.float32)) == pytest.approx(0.25, abs=1e-3)


def test_the_inverse_penalty_of_lowest_validation_loss_is_chosen() -> None:
    rng = np.random.default_rng(
        1
    )  # its own: the best inverse_penalty must not depend on which tests ran before
    x, weight = rng.normal(size=(60, 40)), rng.normal(size=(40, 1))
    noisy = x @ weight + rng.normal(size=(60, 1))
    new = rng.normal(size=(500, 40))
    predict, inverse_penalty = heads.choose(heads.RIDGE, (x, noisy), (new, new @ weight), heads.squared_loss)
    losses = [heads.squared_loss(p(new), new @ weight) for p in heads.RIDGE.fit(x, noisy, heads.RIDGE.grid)]
    assert heads.RIDGE.grid[int(np.argmin(losses))] == inverse_penalty
    assert heads.squared_loss(predict(new), new @ weight) == min(losses)
    assert heads.RIDGE.grid[0] < inverse_penalty < heads.RIDGE.grid[-1]


def test_a_fit_without_a_finite_loss_is_never_chosen() -> None:
    """A fit that predicts NaN for one known truth is worse than any other; if all do, there is no head."""

    def fit_constants(x: np.ndarray, y: np.ndarray, grid: tuple[float, ...]) -> list[heads.Predict]:
        return [lambda x, value=value: np.array([[value]] + [[1.0]] * (len(x) - 1)) for value in grid]

    x, y = np.zeros((3, 1)), np.ones((3, 1))
    head = heads.Head(fit_constants, (np.nan, 2.0, 1.5))
    assert heads.choose(head, (x, y), (x, y), heads.squared_loss)[1] == 1.5
    with pytest.raises(RuntimeError, match="no head has a finite validation loss"):
        heads.choose(heads.Head(fit_constants, (np.nan,)), (x, y), (x, y), heads.squared_loss)
    y[1] = np.nan  # an unknown truth is left out
    assert heads.squared_loss(np.array([[3.0], [np.nan], [1.0]]), y) == 2.0


def test_log_loss_is_scikit_learns_and_skips_unknowns() -> None:
    y = (RNG.random(100) < 0.3).astype(float)
    p = RNG.random(100)
    assert heads.log_loss(p[:, None], y[:, None]) == pytest.approx(log_loss(y, p))
    y[5] = np.nan
    assert heads.log_loss(p[:, None], y[:, None]) == pytest.approx(log_loss(np.delete(y, 5), np.delete(p, 5)))


def test_the_benchmark_reaches_scikit_learns_loss() -> None:
    found = compare_probes(images=400, features=64, labels=3)
    assert found["ratio"] == pytest.approx(found["baseline_seconds"] / found["ours_seconds"])
    assert 0 < found["ours_loss"] == pytest.approx(found["baseline_loss"], rel=0.01)
