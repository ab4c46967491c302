"""Intervals, paired differences and groups, from predictions alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score
from support.labelled_set import Set, run

from fra.transfer.results import Resamples, curve_tables, results, summarise
from fra.transfer.tasks.table import TASKS


def predictions(right: dict[str, float], people: int = 40, images: int = 5, seeds: int = 2) -> pd.DataFrame:
    """Predictions of one label; each model is right for a share of the people (the same for all images of a person)."""
    generator = np.random.default_rng(0)
    person = np.repeat(np.arange(people), images)
    truth = (np.arange(people * images) % 2).astype(float)
    parts = []
    for seed in range(seeds):
        luck = generator.random(people)
        for model, share in right.items():
            score = np.where(luck[person] < share, truth, 1 - truth)
            about = {"protocol": "linear", "fraction": 1.0, "seed": seed, "model": model, "output": "A"}
            columns = {"key": [f"{i}" for i in range(people * images)], "person": [f"p{p}" for p in person]}
            parts.append(
                pd.DataFrame(
                    about
                    | columns
                    | {"truth": truth, "prediction": score, "score": score, "group.old": person % 2}
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_intervals_come_from_resampling_people_not_images() -> None:
    """All images of a person agree, so 40 people with 5 images have the interval of 40 images."""
    table = results("attributes", predictions({"a": 0.7}, seeds=1))
    row = table.query("metric == 'accuracy' and group == '' and seed == 0").iloc[0]
    spread = np.sqrt(row["value"] * (1 - row["value"]) / 40)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * spread, rel=0.15)
    assert row["low"] < row["value"] < row["high"]


def test_curves_of_released_weights_have_their_own_table_with_and_without_them() -> None:
    for models, rows in (({"pretrained": 0.7, "released": 0.6}, 1), ({"pretrained": 0.7}, 0)):
        found = predictions(models, seeds=1)
        tables = curve_tables("attributes", found, results("attributes", found))
        released = tables["few_labels_released"]
        assert list(released) == ["fraction", "released"]
        assert len(released) == rows
        assert "pretrained" in tables["few_labels"]


def test_difference_is_paired() -> None:
    """The worse model errs wherever the better one does, so their difference varies less than either."""
    table = results("attributes", predictions({"a": 0.75, "b": 0.65}))
    mean = table.query("metric == 'accuracy' and group == '' and seed.isna()").set_index("model")
    assert mean.at["a - b", "value"] == pytest.approx(mean.at["a", "value"] - mean.at["b", "value"])
    width = mean["high"] - mean["low"]
    assert width["a - b"] < 0.8 * width["a"]
    summary = summarise(table, predictions({"a": 0.75, "b": 0.65}))
    assert summary["a - b"]["accuracy"]["low"] == mean.at["a - b", "low"]
    assert summary["a"]["accuracy"]["mean"] == mean.at["a", "value"]


def test_resampled_metrics_equal_those_of_repeated_rows() -> None:
    """A resample has the metrics of the rows repeated as often as their person was drawn."""
    rows = predictions({"a": 0.7}, people=12).query("seed == 0")
    rows = rows.assign(score=np.random.default_rng(3).normal(rows["truth"]))
    resamples = Resamples(rows, count=5)
    drawn = TASKS["attributes"].metrics(rows, resamples.weights)
    for b, times in enumerate(resamples.drawn_BP):
        count = times[resamples.people.get_indexer(rows["person"])].astype(int)
        repeated = rows.loc[rows.index.repeat(count)]
        plain = TASKS["attributes"].metrics(repeated, lambda part: [np.ones((1, len(part)))])
        assert {name: value[b] for name, value in drawn.items()} == pytest.approx(
            {name: value[0] for name, value in plain.items()}
        )


def test_pair_has_the_product_of_the_counts_of_its_people() -> None:
    pairs = pd.DataFrame({"person": ["a", "a"], "other_person": ["a", "b"]})
    resamples = Resamples(pairs, count=50)
    weight = np.concatenate(list(resamples.weights(pairs)))
    a, b = resamples.drawn_BP.T
    assert np.array_equal(weight, np.stack([a, a * b], axis=1))


def test_groups_agree_with_fairlearn() -> None:
    rows = predictions({"a": 0.7}, people=30).query("seed == 0")
    table = (
        results("attributes", rows).query("metric == 'accuracy' and seed == 0").set_index("group")["value"]
    )
    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=rows["truth"],
        y_pred=rows["prediction"],
        sensitive_features=rows["group.old"].rename("old"),
    )
    assert table["old=0"] == pytest.approx(frame.by_group[0])
    assert table["old=1"] == pytest.approx(frame.by_group[1])
    assert table["old:difference"] == pytest.approx(frame.difference())
    assert table["old:worst"] == pytest.approx(frame.group_min())


def test_groups_have_means_intervals_and_paired_differences() -> None:
    rows = predictions({"a": 0.75, "b": 0.65})
    table = results("attributes", rows).query("metric == 'accuracy'").set_index(["group", "model"])
    mean = table[table["seed"].isna()]
    for group, part in rows.groupby("group.old"):
        single = results("attributes", part.drop(columns="group.old")).query(
            "metric == 'accuracy' and seed.isna()"
        )
        for model, value in single.set_index("model")["value"].items():
            assert mean.at[(f"old={group}", model), "value"] == pytest.approx(value)
    row = mean.loc[("old=1", "a - b")]
    assert row["low"] < row["value"] < row["high"]
    seeds = table.loc[("old:difference", "a")]
    assert seeds["value"][seeds["seed"].isna()].item() == pytest.approx(
        seeds["value"][seeds["seed"].notna()].mean()
    )


def test_worst_group_of_an_error_has_the_largest_error(faces: Set, tmp_path: Path) -> None:
    run("alignment", faces, tmp_path, groups={"alignment": ("label.Eyeglasses",)}, seeds=1)
    table = pd.read_csv(tmp_path / "results.csv").query(
        "metric == 'nme' and model == 'random' and group.notna() and seed == 0"
    )
    value = table.set_index("group")["value"]
    assert value["Eyeglasses:worst"] == max(value["Eyeglasses=0"], value["Eyeglasses=1"])
    with pytest.raises(ValueError, match=r"no column 'label\.Age'"):
        run("alignment", faces, tmp_path, groups={"alignment": ("label.Age",)})
