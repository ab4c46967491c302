"""docs/results/ruler.md states what follows from the stored predictions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.workspace import ROOT

from fra.data.datasets.adapters import synthetic
from fra.ruler import cross, results
from fra.ruler.faces import OPEN_MOUTH
from fra.train.monitoring.representation import MEASURES

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


def cells_of(page: str, label: str, table: str = "") -> list[str]:
    """The cells of a table's row, without its label.

    Args:
        page: File below docs.
        label: First cell of the row.
        table: First cell of the table's head, where several tables of the page have such a row.
    """
    text = (ROOT / "docs" / page).read_text().replace("−", "-")
    if table:
        text = text.partition(f"\n| {table} |")[2].partition("\n\n")[0]
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} ")]
    return line.split("|")[2:-1]


def row_of(page: str, label: str, table: str = "") -> list[list[float]]:
    """The numbers in these cells, see `cells_of`."""
    return [
        [float(number) for number in re.findall(r"-?\d+\.\d+", cell)] for cell in cells_of(page, label, table)
    ]


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    """Without the rows of the cross test, which has predictions of its own."""
    table = pd.read_csv(STORED / "results.csv")
    return table[table["metric"].isin(ROWS)].reset_index(drop=True)


@pytest.mark.parametrize("metric", ROWS)
def test_the_page_states_the_stored_metrics(metric: str, stored: pd.DataFrame) -> None:
    label, scale, digits = ROWS[metric]
    cells = row_of("results/ruler.md", label)
    rows = stored[stored["metric"] == metric].set_index(["model", "labels"])
    table = rows[["value", "low", "high"]] * scale
    close = 0.51 * 10**-digits
    for model, cell in zip(("demo", "demo-48", "random:0", "random:1"), cells, strict=False):
        assert cell == pytest.approx(list(table.loc[model]["value"]), abs=close), model
    for other, cell in zip(("demo-48", "random:0", "random:1"), cells[4:], strict=True):
        difference = table.loc[(f"demo - {other}", 400)]
        assert cell == pytest.approx([difference["low"], difference["high"]], abs=close), other


def computed(predictions: pd.DataFrame) -> pd.DataFrame:
    """The metrics of stored predictions."""
    rows = synthetic.read_annotations()
    truth = pd.DataFrame([dict(row.measures) | dict(row.labels) for row in rows.values()], index=list(rows))
    assert OPEN_MOUTH in truth
    return results.compare(predictions, truth.astype(float))


SHORT = {
    "nme": ("NME of landmarks in %", 100, 2, 2),
    "yaw": ("yaw error in °", 1, 1, 2),
    "pitch": ("pitch error in °", 1, 1, 2),
    "open_mouth": ("open mouth, AUC", 1, 3, 3),
    "brow_raise": ("R² of brow raise", 1, 2, 2),
    "lip_corner_pull": ("R² of lip corner pull", 1, 2, 2),
    "jaw_drop": ("R² of jaw drop", 1, 2, 2),
    "mouth_width": ("R² of mouth width", 1, 2, 2),
}
ADAPTED_WITH = {"released": "demo", "random:0": "random:0", "random:1": "random:1"}
"""Models that the adapted weights are compared with, and their names in the predictions of the released weights."""


@pytest.fixture(scope="module")
def adapted() -> pd.DataFrame:
    return pd.read_csv(STORED / "adapted.csv")


@pytest.mark.parametrize("metric", SHORT)
def test_the_page_states_the_metrics_of_the_adapted_weights(metric: str, adapted: pd.DataFrame) -> None:
    label, scale, digits, of_differences = SHORT[metric]
    cells = row_of("results/ruler.md", label)
    table = (
        adapted[adapted["metric"] == metric].set_index(["model", "labels"])[["value", "low", "high"]] * scale
    )
    assert cells[0] == pytest.approx(list(table.loc["adapted", "value"]), abs=0.51 * 10**-digits)
    for other, cell in zip(ADAPTED_WITH, cells[1:], strict=True):
        row = table.loc[(f"adapted - {other}", 400)]
        assert cell == pytest.approx([row["low"], row["high"]], abs=0.51 * 10**-of_differences), other


def test_the_page_states_where_the_adapted_weights_are_better(adapted: pd.DataFrame) -> None:
    found = results.beyond_chance(adapted).set_index(["model", "labels", "metric"])
    found = found["conclusion"].sort_index()
    for other in ("random:0", "random:1"):
        assert (found[f"adapted - {other}", 100] == 1).all()
        assert (found[f"adapted - {other}", 400].drop("open_mouth") == 1).all()
        assert found[f"adapted - {other}", 400, "open_mouth"] < 1
    assert set(found["adapted - released", 400].drop("yaw")) == {-1}
    assert found["adapted - released", 400, "yaw"] == 1


@pytest.fixture(scope="module")
def compared() -> pd.DataFrame:
    """Three seeds of FRA (`regions`) and of image level: with equal CPU time (`image_level`) and with equal steps."""
    return pd.read_csv(STORED / "compared.csv")


PAGE = "results/released-weights.md"
OTHERS = ("image_level", "equal_steps")
TITLES = {"frozen": "frozen", "finetuned": "fine-tuned"}


@pytest.mark.parametrize("metric", ROWS)
@pytest.mark.parametrize("protocol", TITLES)
def test_a_page_compares_regions_and_image_level(protocol: str, metric: str, compared: pd.DataFrame) -> None:
    """Means with 400 and 4,000 labels, then for each the intervals of both differences, bold where beyond chance."""
    label, scale, digits = ROWS[metric]
    where = (PAGE, label.replace("mean error", "error"), TITLES[protocol])
    texts, cells = cells_of(*where), row_of(*where)
    rows = compared[
        (compared["protocol"] == protocol) & (compared["part"] == "test") & (compared["metric"] == metric)
    ]
    conclusion = results.beyond_chance(rows).set_index(["model", "labels"])["conclusion"]
    table = rows.set_index(["model", "labels"])[["value", "low", "high", "seed_low", "seed_high"]] * scale
    close = 0.51 * 10**-digits
    for model, cell in zip(("regions", *OTHERS), cells, strict=False):
        assert cell == pytest.approx([table.loc[(model, n), "value"] for n in (400, 4000)], abs=close), model
    pairs = [(f"regions - {other}", labels) for labels in (400, 4000) for other in OTHERS]
    for pair, text, cell in zip(pairs, texts[3:], cells[3:], strict=True):
        assert cell == pytest.approx(list(table.loc[pair].drop("value")), abs=close), pair
        assert ("**" in text) == (conclusion[pair] != 0), pair


@pytest.fixture(scope="module")
def continued() -> pd.DataFrame:
    """Three continuations of the released weights with regions, and three at image level."""
    return pd.read_csv(STORED / "continued.csv")


@pytest.mark.parametrize("metric", ROWS)
def test_a_page_compares_continued_weights(metric: str, continued: pd.DataFrame) -> None:
    """Means with 100, 400 and 4,000 labels, then the interval of each difference, bold where beyond chance."""
    label, scale, digits = ROWS[metric]
    where = (PAGE, label.replace("mean error", "error"), "continued")
    rows = continued[(continued["part"] == "test") & (continued["metric"] == metric)]
    conclusion = results.beyond_chance(rows).set_index(["model", "labels"])["conclusion"]
    table = rows.set_index(["model", "labels"])[["value", "low", "high", "seed_low", "seed_high"]] * scale
    texts, cells = cells_of(*where), row_of(*where)
    for model, cell in zip(("regions", "image_level"), cells, strict=False):
        assert cell == pytest.approx(list(table.loc[model, "value"]), abs=0.51 * 10**-digits), model
    close = 0.51 * 10 ** -(2 if metric in ("nme", "yaw", "pitch") else 3)
    for labels, text, cell in zip((100, 400, 4000), texts[2:], cells[2:], strict=True):
        pair = ("regions - image_level", labels)
        assert cell == pytest.approx(list(table.loc[pair].drop("value")), abs=close), labels
        assert ("**" in text) == (conclusion[pair] != 0), labels


def test_a_page_says_where_continued_weights_are_better(continued: pd.DataFrame) -> None:
    """By the validation faces two measures were named; on the test faces both are better, and nothing is worse."""
    better = {}
    for part in ("val", "test"):
        rows = results.beyond_chance(continued[continued["part"] == part])
        rows = rows[rows["model"] == "regions - image_level"]
        assert len(rows) == 24
        assert (rows["conclusion"] >= 0).all()
        better[part] = set(rows[rows["conclusion"] == 1].set_index(["metric", "labels"]).index)
    assert better["val"] == {("nme", 100), ("yaw", 100)}
    assert better["test"] == {*better["val"], ("pitch", 400)}


def test_a_page_says_what_more_weight_on_regions_gives(continued: pd.DataFrame) -> None:
    """On validation faces, compared with image level and with the weight of the recipe."""
    rows = results.beyond_chance(continued[continued["part"] == "val"])
    found = {
        other: dict(one[one["conclusion"] != 0].set_index(["metric", "labels"])["conclusion"])
        for other in ("image_level", "regions")
        for one in [rows[rows["model"] == f"strong_regions - {other}"]]
    }
    assert found["image_level"] == {("nme", 100): 1, ("yaw", 100): 1}
    assert found["regions"] == {("yaw", 100): 1, ("lip_corner_pull", 400): -1, ("jaw_drop", 400): -1}


def over_faces(compared: pd.DataFrame, part: str) -> pd.DataFrame:
    """Differences of FRA and image level that are beyond chance over the faces, whatever the seeds."""
    rows = results.beyond_chance(compared[compared["part"] == part].assign(seed_low=np.nan, seed_high=np.nan))
    rows = rows[rows["model"].isin([f"regions - {other}" for other in OTHERS]) & (rows["conclusion"] != 0)]
    return rows.set_index(["protocol", "model", "metric", "labels"])


def test_a_page_counts_the_differences_of_regions_and_image_level(compared: pd.DataFrame) -> None:
    text = " ".join((ROOT / "docs" / PAGE).read_text().split())
    shown = compared[(compared["part"] == "test") & compared["labels"].isin([400, 4000])]
    rows = results.beyond_chance(shown)
    rows = rows[rows["model"].isin([f"regions - {other}" for other in OTHERS])]
    beyond = rows[rows["conclusion"] != 0]
    assert f"Of {len(rows)} differences two are beyond chance" in text
    assert list(beyond["conclusion"]) == [1, 1]
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
    actions = ("lip_corner_pull", "jaw_drop", "mouth_width")
    assert places == {("finetuned", "open_mouth", 400)} | {("frozen", action, 100) for action in actions}
    of_test = over_faces(compared, "test")
    assert [key in of_test.index and of_test.loc[key, "conclusion"] == 1 for key in named].count(True) == 3
    rows = results.beyond_chance(compared[compared["part"] == "test"])
    both = rows.set_index(["protocol", "model", "metric", "labels"])["conclusion"]
    assert (both.loc[named] == 0).all()


def test_a_page_compares_fine_tuned_random_weights(compared: pd.DataFrame) -> None:
    text = " ".join((ROOT / "docs" / PAGE).read_text().split())
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
    """FRA and image level, frozen and fine-tuned."""
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
    text = " ".join((ROOT / "docs/results/ruler.md").read_text().replace("−", "-").split())
    values = {
        model: " / ".join(f"{value:.1f}" for value in table.loc[model, "value"])
        for model in ("demo", "random:0", "random:1")
    }
    mean_face = table.loc[(cross.MEAN_FACE, 100), "value"]
    assert (
        f"the mean synthetic face {mean_face:.1f}, released {values['demo']}, random weights {values['random:0']} and "
        f"{values['random:1']}."
    ) in text
    bounds = [table.loc[(f"demo - random:{seed}", 400)] for seed in (0, 1)]
    intervals = " and ".join(f"{row['low']:.1f} … {row['high']:.1f}" for row in bounds)
    assert f"with 400 labels (95 %, over 40 people): {intervals} points" in text


LABEL_FREE = ROOT / "docs/results/evidence/label-free"


@pytest.mark.parametrize(
    ("kind", "without"), [("all", ()), ("trained", ("random",)), ("long", ("random", "short"))]
)
def test_the_page_states_what_label_free_measures_predict(kind: str, without: tuple[str, ...]) -> None:
    """Rank correlations over the stored runs, computed from their measures and metrics."""
    measured, table = (pd.read_csv(LABEL_FREE / f"{name}.csv") for name in ("measures", "results"))
    assert list(pd.read_csv(LABEL_FREE / "runs.csv")["model"]) == list(measured["model"])
    measured, table = (
        (part[~part["model"].str.startswith(without)] for part in (measured, table))
        if without
        else (measured, table)
    )
    found = results.correlations(measured, table).set_index("metric")
    text = (ROOT / "docs/results/ruler.md").read_text().replace("−", "-")
    for metric, label in {"nme": "landmarks", "yaw": "yaw", "open_mouth": "open mouth"}.items():
        start = f"| {label}, {kind} {len(measured)} |"
        (line,) = [line for line in text.splitlines() if line.startswith(start)]
        cells = [
            [float(number) for number in re.findall(r"-?\d+\.\d+", cell)] for cell in line.split("|")[2:-1]
        ]
        for measure, cell in zip(MEASURES, cells, strict=True):
            wanted = found.loc[metric, [measure, f"{measure}_low", f"{measure}_high"]]
            assert cell == pytest.approx(list(wanted), abs=0.0051), (metric, measure)


def test_the_page_states_that_short_training_is_worse_than_none() -> None:
    table = pd.read_csv(LABEL_FREE / "results.csv")
    value = table[table["metric"] == "nme"].set_index("model")["value"] * 100
    kind = value.index.str.extract("^(short|random)")[0].fillna("long").to_numpy()
    low, high = value.groupby(kind).min(), value.groupby(kind).max()
    text = " ".join((ROOT / "docs/results/ruler.md").read_text().split())
    assert (
        f"the short ones have {low['short']:.1f} to {high['short']:.1f} % NME, random networks {low['random']:.1f} to "
        f"{high['random']:.1f} %, the long ones {low['long']:.1f} to {high['long']:.1f} %."
    ) in text
