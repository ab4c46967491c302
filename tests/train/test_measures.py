"""Label-free measures: hand-computed values, the images they read, and training that does not depend on them."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.toy_training import SIZE, run

from fra.data.loader import sample
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.method import backbone as backbones
from fra.train.monitoring.measure import Measures
from fra.train.monitoring.representation import (
    MEASURES,
    alignment,
    alpha_req,
    measures,
    rankme,
    uniformity,
    unit,
)
from fra.weights.files import read_weights


def with_singular_values(values: Any) -> Any:
    left, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(90, len(values))))
    return left * values


def test_rankme_of_known_singular_values() -> None:
    assert rankme(with_singular_values([2.0] * 5)) == pytest.approx(5)
    assert rankme(with_singular_values([7.0, 0, 0])) == pytest.approx(1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert rankme(with_singular_values([3.0, 1.0])) == pytest.approx(math.exp(entropy))
    assert rankme(np.zeros((4, 3))) == 1


def test_alignment_is_the_squared_distance_of_two_views() -> None:
    one, other = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [1, 0]])
    assert alignment(one, one) == 0
    assert alignment(one, other) == pytest.approx((0 + 2) / 2)
    assert alignment(one, -one) == pytest.approx(4)


def test_uniformity_of_points_on_a_circle() -> None:
    angle_N = 2 * math.pi * np.arange(3) / 3  # squared distances of 3
    assert uniformity(np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)) == pytest.approx(-6)
    assert uniformity(np.array([[1.0, 0], [1, 0]])) == pytest.approx(0)
    pairs = np.array([[1.0, 0], [1, 0], [-1, 0]])  # squared distances 0, 4, 4
    assert uniformity(pairs) == pytest.approx(math.log((1 + 2 * math.exp(-8)) / 3))


def test_alpha_req_of_a_power_law() -> None:
    rank = np.arange(1, 61)
    assert alpha_req(with_singular_values(rank**-0.7)) == pytest.approx(1.4)
    bent = np.where(rank > 50, 1e-5, rank**-0.5)
    assert alpha_req(with_singular_values(bent)) == pytest.approx(1.0), "ranks above 50 do not count"
    assert math.isnan(alpha_req(with_singular_values([3.0, 2.0, 1.0])))


def test_the_mean_feature_does_not_count() -> None:
    generator = np.random.default_rng(0)
    whole, first, second = generator.normal(size=(3, 80, 60))
    shifted = [x + 100 for x in (whole, first, second)]
    assert measures(*shifted) == pytest.approx(measures(whole, first, second), rel=1e-6)
    assert list(measures(whole, first, second)) == list(MEASURES)
    assert np.allclose(unit(np.zeros((2, 3))), 0)


def on_noise(split: str = "val") -> Measures:
    pixels = np.random.default_rng(1).integers(0, 256, (70, 40, 36, 3), dtype=np.uint8)
    return Measures(lambda: list(pixels), Views(ViewsConfig(), seed=0), SIZE, split)


def test_measures_change_neither_backbone_nor_random_state() -> None:
    torch.manual_seed(0)
    backbone = backbones.build("mini").train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    random_state, ours = torch.get_rng_state(), on_noise()
    found = ours(backbone, torch.device("cpu"))
    assert found == ours(backbone, torch.device("cpu"))
    assert 1 < found["rankme"] < 70
    assert 0 < found["alignment"] < 4
    assert found["uniformity"] < 0
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(module.training for module in backbone.modules())


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_training_is_the_same_with_and_without_and_after_an_interruption(tmp_path: Path) -> None:
    """Broken off between measures (step 6) and the next row: the history has the same bytes."""

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 8:
            raise KeyboardInterrupt

    measured, broken, without = (tmp_path / name for name in ("measured", "broken", "without"))
    metrics = run(measured, measures=on_noise("train"), measure_every=3)
    with pytest.raises(KeyboardInterrupt):
        run(broken, measures=on_noise("train"), measure_every=3, observe=stop)
    run(broken, measures=on_noise("train"), measure_every=3)
    run(without, measure_every=3)
    assert (measured / "out/history.csv").read_bytes() == (broken / "out/history.csv").read_bytes()
    ours, theirs = (read_weights(folder / "out/model.safetensors")[0] for folder in (measured, without))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    rows = history(measured)
    assert [{**row, **dict.fromkeys(MEASURES, "")} for row in rows] == history(without)
    assert len({row["rankme"] for row in rows}) == 5  # before the first step, then at steps 3, 6, 9 and 12
    assert metrics["rankme"] == float(rows[-1]["rankme"])
    assert metrics["measured_split"] == "train"


def test_a_sample_is_spread_over_a_split_without_quarantined_images(labelled: Path) -> None:
    beton, shards = labelled / "beton/val.beton", labelled / "shards"
    assert (sample.split_of(beton), sample.split_of(shards)) == ("val", "val")
    assert sample.files_of(shards) == [shards / "index.json", shards / "val-000000.tar"]
    ours, theirs = (sample.read_sample(source, {1}, 100) for source in (beton, shards))
    assert len(ours) == 7
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
    few = sample.read_sample(labelled / "beton/train.beton", set(), 3)
    everything = sample.read_sample(labelled / "beton/train.beton", set(), 100)
    assert [any(np.array_equal(one, everything[place]) for one in few) for place in (0, 8, 16)] == [True] * 3
