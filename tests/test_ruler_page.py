"""The pages of results on synthetic faces state what follows from the stored predictions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.workspace import ROOT

from fra.data.datasets.adapters import synthetic
from fra.ruler import cross, forest, results
from fra.ruler.faces import OPEN_MOUTH
from fra.train.monitoring.representation import MEASURES
from pipelines.cli import ruler_tables

STORED = ROOT / "docs/results/evidence/ruler"
ROWS = {
    "nme": ("landmarks, NME in %", 100, 2),
    "yaw": ("yaw, mean error in °", 1, 1),
    "pitch": ("pitch, mean error in °", 1, 1),
    "open_mouth": ("open mouth, ROC AUC", 1, 3),
    "brow_raise": ("brow raise, R²", 1, 2),
    "lip_corner_pull": ("lip corner pull, R²", 1, 2),
    "jaw_drop": ("jaw drop, R²", 1, 2),
    "mouth_width": ("mouth width, R²", 1, 2),
}


def cells_of(page: str, label: str) -> list[str]:
    """The cells of a table's row, without its label, which is the first cell or its beginning."""
    text = (ROOT / "docs" / page).read_text().replace("−", "-")
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} ")]
    return line.split("|")[2:-1]


def row_of(page: str, label: str) -> list[list[float]]:
    """The numbers in these cells, see `cells_of`."""
    return [[float(number) for number in re.findall(r"-?\d+\.\d+", cell)] for cell in cells_of(page, label)]


OF_DIFFERENCES = {"nme": 2, "yaw": 2, "pitch": 2, "open_mouth": 3}
"""Digits of a difference; 2 for R²."""
RULER, BYOL = "results/ruler.md", "results/compared-with-byol.md"


def words_of(page: str) -> str:
    """The text of a page in one line, with a hyphen for each minus."""
    return " ".join((ROOT / "docs" / page).read_text().replace("−", "-").split())


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    """Without the rows of the cross test, which has predictions of its own."""
    table = pd.read_csv(STORED / "results.csv")
    return table[table["metric"].isin(ROWS)].reset_index(drop=True)


@pytest.fixture(scope="module")
def adapted() -> pd.DataFrame:
    return pd.read_csv(STORED / "adapted.csv")


@pytest.mark.parametrize("metric", ROWS)
def test_the_page_states_the_stored_metrics(metric: str, stored: pd.DataFrame, adapted: pd.DataFrame) -> None:
    label, scale, digits = ROWS[metric]
    ours = adapted[adapted["model"].str.startswith("adapted")]
    rows = pd.concat([stored, ours]).set_index(["metric", "labels"]).loc[[(metric, 400)]].set_index("model")
    table = rows[["value", "low", "high"]] * scale
    cells = row_of(RULER, label)
    models = ("demo", "adapted", "demo-48", "random:0", "random:1")
    for model, cell in zip(models, cells[:5], strict=True):
        assert cell == pytest.approx([table.loc[model, "value"]], abs=0.51 * 10**-digits), model
    close = 0.51 * 10 ** -OF_DIFFERENCES.get(metric, 2)
    for difference, cell in zip(("demo - random:0", "adapted - released"), cells[5:], strict=True):
        assert cell == pytest.approx(list(table.loc[difference, ["low", "high"]]), abs=close), difference


def test_the_page_states_where_the_released_weights_are_better(stored: pd.DataFrame) -> None:
    found = results.beyond_chance(stored).set_index(["model", "labels", "metric"])["conclusion"]
    assert (found["demo - demo-48"] == 1).all()
    assert (found["demo - random:0"] == 1).all()
    second = found["demo - random:1"].unstack()
    assert (second.drop(columns="open_mouth") == 1).all(axis=None)
    assert (second.loc[[400, 1600, 4000], "open_mouth"] < 1).all()


def computed(predictions: pd.DataFrame) -> pd.DataFrame:
    """The metrics of stored predictions."""
    rows = synthetic.read_annotations()
    truth = pd.DataFrame([dict(row.measures) | dict(row.labels) for row in rows.values()], index=list(rows))
    assert OPEN_MOUTH in truth
    return results.compare(predictions, truth.astype(float))


ADAPTED_WITH = {"released": "demo", "random:0": "random:0", "random:1": "random:1"}
"""Models that the adapted weights are compared with, and their names in the predictions of the released weights."""


def test_the_page_states_where_the_adapted_weights_are_better(adapted: pd.DataFrame) -> None:
    found = results.beyond_chance(adapted).set_index(["model", "labels", "metric"])
    found = found["conclusion"].sort_index()
    for other in ("random:0", "random:1"):
        assert (found[f"adapted - {other}", 100] == 1).all()
        assert (found[f"adapted - {other}", 400].drop("open_mouth") == 1).all()
    assert found["adapted - random:0", 400, "open_mouth"] == 0
    assert found["adapted - random:1", 400, "open_mouth"] == -1
    assert set(found["adapted - released", 400].drop("yaw")) == {-1}
    assert found["adapted - released", 400, "yaw"] == 1


@pytest.fixture(scope="module")
def compared() -> pd.DataFrame:
    """Three seeds of FRA (`regions`) and of BYOL: with equal CPU time (`image_level`) and with equal steps."""
    return pd.read_csv(STORED / "compared.csv")


@pytest.fixture(scope="module")
def continued() -> pd.DataFrame:
    """Three continuations of the released weights by FRA (`regions`), and three by BYOL (`image_level`)."""
    return pd.read_csv(STORED / "continued.csv")


OTHERS = ("image_level", "equal_steps")
BEYOND_CHANCE = {
    "landmarks, NME in %, 100 labels": ("nme", 100),
    "yaw, error in °, 100 labels": ("yaw", 100),
    "pitch, error in °, 400 labels": ("pitch", 400),
}
"""Rows of the table of continued weights: metric and number of labels."""
NAMED = {
    "lip corner pull, R², frozen, 100 labels": ("frozen", "lip_corner_pull", 100),
    "jaw drop, R², frozen, 100 labels": ("frozen", "jaw_drop", 100),
    "mouth width, R², frozen, 100 labels": ("frozen", "mouth_width", 100),
    "open mouth, ROC AUC, fine-tuned, 400 labels": ("finetuned", "open_mouth", 400),
}
"""Rows of the table of measures that validation faces named with equal steps: protocol, metric and number of labels."""


def bounds(table: pd.DataFrame, models: tuple[str, str], scale: float) -> list[list[float]]:
    """The cells of a row: the value of each model, the interval of their difference over faces, and over seeds."""
    rows = table.set_index("model")
    difference = rows.loc[" - ".join(models)]
    cells = [[rows.loc[model, "value"]] for model in models]
    cells += [[difference[f"{of}low"], difference[f"{of}high"]] for of in ("", "seed_")]
    return [[value * scale for value in cell] for cell in cells]


@pytest.mark.parametrize("row", BEYOND_CHANCE)
def test_a_page_compares_continued_weights(row: str, continued: pd.DataFrame) -> None:
    _, scale, digits = ROWS[BEYOND_CHANCE[row][0]]
    rows = continued[continued["part"] == "test"].set_index(["metric", "labels"])
    table = rows.loc[[BEYOND_CHANCE[row]]]
    wanted = bounds(table, ("regions", "image_level"), scale)
    for cell, values, to in zip(row_of(BYOL, row)[1:], wanted, (digits, digits, 2, 2), strict=True):
        assert cell == pytest.approx(values, abs=0.51 * 10**-to)


@pytest.mark.parametrize("row", NAMED)
def test_a_page_compares_the_measures_named_with_equal_steps(row: str, compared: pd.DataFrame) -> None:
    rows = compared[compared["part"] == "test"].set_index(["protocol", "metric", "labels"])
    table = rows.loc[[NAMED[row]]]
    wanted = bounds(table, ("regions", "equal_steps"), 1)
    for cell, values in zip(row_of(BYOL, row), wanted, strict=True):
        assert cell == pytest.approx(values, abs=0.00051)


def test_a_page_says_where_continued_weights_are_better(continued: pd.DataFrame) -> None:
    """By the validation faces two measures were named; on the test faces both are better, and nothing is worse."""
    better = {}
    for part in ("val", "test"):
        rows = results.beyond_chance(continued[continued["part"] == part])
        rows = rows[rows["model"] == "regions - image_level"]
        assert len(rows) == 24
        assert (rows["conclusion"] >= 0).all()
        better[part] = set(rows[rows["conclusion"] == 1].set_index(["metric", "labels"]).index)
    assert better["test"] == set(BEYOND_CHANCE.values())
    assert better["val"] == {
        place for row, place in BEYOND_CHANCE.items() if cells_of(BYOL, row)[0].strip() == "yes"
    }


def test_the_gain_of_regions_is_one_to_two_per_cent(continued: pd.DataFrame) -> None:
    rows = forest.relative(continued[continued["part"] == "test"])
    assert set(rows["model"]) == {"regions - image_level"}
    better = rows[rows["conclusion"] == 1]["value"]
    assert [round(-value) for value in better] == [1, 2, 1]


def test_the_picture_is_drawn_from_the_stored_results() -> None:
    """By the command on the page."""
    drawn = forest.draw(
        forest.relative(forest.read(STORED / "continued.csv", ["part=test"])),
        {name: metric.label for name, metric in ruler_tables.METRICS.items()},
        "Error of FRA compared with BYOL, in %",
    )
    assert drawn == (ROOT / "docs/images/compared-with-byol.svg").read_text()


def test_a_page_says_what_more_weight_on_regions_gives(continued: pd.DataFrame) -> None:
    """On validation faces, compared with BYOL and with the weight of the recipe."""
    rows = results.beyond_chance(continued[continued["part"] == "val"])
    found = {
        other: dict(one[one["conclusion"] != 0].set_index(["metric", "labels"])["conclusion"])
        for other in ("image_level", "regions")
        for one in [rows[rows["model"] == f"strong_regions - {other}"]]
    }
    assert found["image_level"] == {("nme", 100): 1, ("yaw", 100): 1}
    assert found["regions"] == {("yaw", 100): 1, ("lip_corner_pull", 400): -1, ("jaw_drop", 400): -1}


def over_faces(compared: pd.DataFrame, part: str) -> pd.DataFrame:
    """Differences of FRA and BYOL that are beyond chance over the faces, whatever the seeds."""
    rows = results.beyond_chance(compared[compared["part"] == part].assign(seed_low=np.nan, seed_high=np.nan))
    rows = rows[rows["model"].isin([f"regions - {other}" for other in OTHERS]) & (rows["conclusion"] != 0)]
    return rows.set_index(["protocol", "model", "metric", "labels"])


def test_a_page_counts_the_differences_from_random_weights(compared: pd.DataFrame) -> None:
    text = words_of(BYOL)
    shown = compared[(compared["part"] == "test") & compared["labels"].isin([400, 4000])]
    rows = results.beyond_chance(shown)
    rows = rows[rows["model"].isin([f"regions - {other}" for other in OTHERS])]
    beyond = rows[rows["conclusion"] != 0]
    assert f"Of {len(rows)} differences two are beyond chance" in text
    assert set(beyond["conclusion"]) == {1}
    assert set(zip(beyond["model"], beyond["metric"], strict=True)) == {
        ("regions - image_level", "jaw_drop"),
        ("regions - equal_steps", "lip_corner_pull"),
    }
    assert set(beyond["protocol"]) == {"finetuned"}
    assert set(beyond["labels"]) == {400}
    found = over_faces(shown, "test")["conclusion"].groupby(["protocol", "model"]).value_counts()
    assert found.to_dict() == {
        ("frozen", "regions - image_level", -1): 9,
        ("frozen", "regions - equal_steps", -1): 5,
        ("finetuned", "regions - image_level", 1): 5,
        ("finetuned", "regions - equal_steps", 1): 4,
    }
    assert (
        "behind equal time in 9 of 16 differences and ahead in none; fine-tuned it is ahead in 5 and" in text
    )
    assert "(equal steps: behind in 5; ahead in 4)" in text


def test_a_page_names_measures_by_validation_faces(compared: pd.DataFrame) -> None:
    of_val = over_faces(compared, "val")["conclusion"]
    named = of_val.index[of_val == 1]
    assert set(named.get_level_values("model")) == {"regions - equal_steps"}
    places = {(protocol, metric, labels) for protocol, _, metric, labels in named}
    assert places == set(NAMED.values())
    of_test = over_faces(compared, "test")
    assert [key in of_test.index and of_test.loc[key, "conclusion"] == 1 for key in named].count(True) == 3
    rows = results.beyond_chance(compared[compared["part"] == "test"])
    both = rows.set_index(["protocol", "model", "metric", "labels"])["conclusion"]
    assert (both.loc[named] == 0).all()


def test_a_page_compares_fine_tuned_random_weights(compared: pd.DataFrame) -> None:
    text = words_of(BYOL)
    rows = compared[(compared["part"] == "test") & (compared["protocol"] == "finetuned")]
    value = rows.set_index(["model", "metric", "labels"])["value"]["random"]
    nme = [f"{100 * value['nme', labels]:.2f}" for labels in (400, 4000)]
    yaw = [f"{value['yaw', labels]:.1f}" for labels in (400, 4000)]
    assert f"reach NME {' / '.join(nme)} % and yaw {' / '.join(yaw)}°" in text
    found = results.beyond_chance(rows[rows["model"] == "regions - random"])
    found = found.set_index(["metric", "labels"])["conclusion"]
    ahead = {
        ("nme", 400),
        ("nme", 4000),
        ("yaw", 400),
        ("yaw", 4000),
        ("jaw_drop", 400),
        ("open_mouth", 4000),
    }
    behind = {("brow_raise", 400), ("open_mouth", 400), ("lip_corner_pull", 4000)}
    assert set(found.index[found == 1]) == ahead
    assert set(found.index[found == -1]) == behind


def test_a_page_says_how_many_seeds_would_decide(compared: pd.DataFrame) -> None:
    """From the deviation of the seeds' differences: half the width of the interval of three and of five seeds."""
    rows = compared[(compared["part"] == "test") & (compared["model"] == "regions - image_level")]
    row = rows.set_index(["protocol", "metric", "labels"]).loc[("frozen", "nme", 400)]
    margin = (row["seed_high"] - row["seed_low"]) / 2 * 100
    deviation = margin * np.sqrt(3) / stats.t.ppf(0.975, 2)
    assert margin == pytest.approx(0.1, abs=0.01)
    assert deviation * stats.t.ppf(0.975, 4) / np.sqrt(5) == pytest.approx(0.05, abs=0.005)


def test_a_page_compares_a_balanced_and_a_random_list() -> None:
    table = pd.read_csv(STORED / "balanced.csv").set_index(["model", "metric", "labels"])
    for metric in ("nme", "yaw", "open_mouth", "mouth_width"):
        label, scale, digits = ROWS[metric]
        cells = row_of("results/curation.md", label.replace("mean error", "error"))
        difference = table.loc[("balanced - random_list", metric, 400)]
        values = [table.loc[(model, metric, 400), "value"] for model in ("balanced", "random_list")]
        expected = [value * scale for value in (*values, difference["low"], difference["high"])]
        assert [value for cell in cells for value in cell] == pytest.approx(expected, abs=0.51 * 10**-digits)


def of_released() -> pd.DataFrame:
    return computed(pd.read_parquet(STORED / "predictions.parquet"))


def of_adapted() -> pd.DataFrame:
    """The adapted weights and those that they are compared with."""
    others = pd.read_parquet(STORED / "predictions.parquet")
    parts = [pd.read_parquet(STORED / "adapted.parquet")]
    parts += [
        others[(others["model"] == name) & others["labels"].isin([100, 400])].assign(model=model)
        for model, name in ADAPTED_WITH.items()
    ]
    return computed(pd.concat(parts, ignore_index=True))


def of_compared() -> pd.DataFrame:
    """FRA and BYOL, frozen and fine-tuned."""
    stored = pd.read_parquet(STORED / "compared.parquet")
    return pd.concat(
        [
            computed(part.drop(columns="protocol")).assign(protocol=protocol)
            for protocol, part in stored.groupby("protocol", sort=False)
        ],
        ignore_index=True,
    )


def of_continued() -> pd.DataFrame:
    return computed(pd.read_parquet(STORED / "continued.parquet"))


@pytest.fixture
def tables(request: pytest.FixtureRequest) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """A stored table, and the same computed from the stored predictions."""
    table: pd.DataFrame = request.getfixturevalue(request.param)
    if "part" in table:  # predictions of validation faces are not stored
        table = table[table["part"] == "test"].reset_index(drop=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        if request.node.get_closest_marker("slow") is None:
            patch.setattr(results, "RESAMPLES", 2)
        yield table, COMPUTED[request.param]()


COMPUTED = {
    "stored": of_released,
    "adapted": of_adapted,
    "compared": of_compared,
    "continued": of_continued,
}
"""What computes each table, by the fixture that reads it."""


@pytest.mark.parametrize("tables", COMPUTED, indirect=True)
def test_stored_values_follow_from_the_predictions(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table, found = tables
    keys = table.columns.intersection(["protocol", "model", "metric", "labels", "seeds"])
    assert found[keys].equals(table[keys])
    for column in table.columns.intersection(["value", "seed_low", "seed_high"]):
        np.testing.assert_allclose(found[column], table[column], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("tables", COMPUTED, indirect=True)
def test_stored_intervals_follow_from_the_predictions(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table, found = tables
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(found[column], table[column], rtol=1e-6, atol=1e-9)


def test_the_page_states_the_cross_test() -> None:
    """Computed from the stored predictions of the photographs."""
    table = results.table(cross.values(pd.read_parquet(STORED / "photographs.parquet")))
    table = table.set_index(["model", "labels"])[["value", "low", "high"]] * 100
    text = words_of(RULER)
    demo, first, second = (table.loc[model, "value"].round(1) for model in ("demo", "random:0", "random:1"))
    mean_face = table.loc[(cross.MEAN_FACE, 400), "value"]
    assert (
        f"the mean synthetic face {mean_face:.1f}, `demo` {demo[400]}, random weights {first[400]} and {second[400]};"
    ) in text
    assert f"(`demo` {demo[4000]}, random weights {first[4000]} and {second[4000]})" in text
    rows = [table.loc[(f"demo - random:{seed}", 400)] for seed in (0, 1)]
    intervals = " and ".join(f"{row['low']:.1f} … {row['high']:.1f}" for row in rows)
    assert f"`demo` - random {intervals} points (95 % over 40 people)" in text


LABEL_FREE = ROOT / "docs/results/evidence/label-free"
KINDS = {"all": ("none",), "trained": ("random",), "long": ("random", "short")}
"""Rows of the table of label-free measures, and the beginnings of the names of models that each leaves out."""


def correlations(kind: str) -> pd.DataFrame:
    """Rank correlations over the stored runs of a kind, computed from their measures and metrics."""
    measured, table = (pd.read_csv(LABEL_FREE / f"{name}.csv") for name in ("measures", "results"))
    assert list(pd.read_csv(LABEL_FREE / "runs.csv")["model"]) == list(measured["model"])
    measured, table = (
        part[~part["model"].str.startswith(KINDS[kind])].reset_index(drop=True) for part in (measured, table)
    )
    return results.correlations(measured, table).set_index("metric")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_states_what_label_free_measures_predict(kind: str) -> None:
    row = correlations(kind).loc["nme"]
    for measure, cell in zip(MEASURES, row_of(RULER, f"{kind} {row['models']:.0f}"), strict=True):
        wanted = row[[measure, f"{measure}_low", f"{measure}_high"]]
        assert cell == pytest.approx(list(wanted), abs=0.0051), measure


def test_the_page_states_what_label_free_measures_do_not_predict() -> None:
    """By whether intervals of rank correlations exclude 0."""
    orders = {
        kind: pd.DataFrame({name: found[f"{name}_low"] > 0 for name in MEASURES})
        for kind in KINDS
        for found in [correlations(kind)]
    }
    metrics = ["nme", "yaw", "open_mouth"]
    assert orders["trained"].loc[metrics].all().to_dict() == {
        "rankme": True,
        "alignment": True,
        "uniformity": True,
        "alpha_req": False,
    }
    assert not orders["trained"].loc[metrics, "alpha_req"].any()
    assert not orders["long"].loc[["nme", "yaw"]].any(axis=None)
    assert not orders["all"].loc["open_mouth"].any()


def test_the_page_states_that_short_training_is_worse_than_none() -> None:
    table = pd.read_csv(LABEL_FREE / "results.csv")
    value = table[table["metric"] == "nme"].set_index("model")["value"] * 100
    kind = value.index.str.extract("^(short|random)")[0].fillna("long").to_numpy()
    low, high = value.groupby(kind).min(), value.groupby(kind).max()
    text = words_of(RULER)
    assert (
        f"the short ones have {low['short']:.1f} to {high['short']:.1f} % NME, random networks {low['random']:.1f} to "
        f"{high['random']:.1f} %, the long ones {low['long']:.1f} to {high['long']:.1f} %."
    ) in text
