"""The ruler, on a few faces: it finds what is in features, and nothing where labels are shuffled."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from support.workspace import ROOT
from typer.testing import CliRunner

from fra.ruler import cross, finetune, fit, forest, results
from fra.ruler.faces import OPEN_MOUTH, Faces
from fra.transfer import align, metrics
from fra.weights import released
from pipelines.cli import ruler_tables
from pipelines.cli.main import app

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def faces() -> Faces:
    """Squares of three sizes at random places, with labels that follow from the place."""
    generator = np.random.default_rng(0)
    place_N2 = generator.integers(4, 36, (460, 2))
    image_NHW3 = np.full((460, 64, 64, 3), 60, np.uint8)
    for image, (x, y) in zip(image_NHW3, place_N2, strict=True):
        image[y : y + 24, x : x + 24] = 220
    template_L2 = generator.uniform(0, 24, (68, 2))
    template_L2[[36, 45]] = [[2, 6], [22, 6]]
    opened = (place_N2[:, 1] > 20).astype(float)
    opened[::5] = np.nan
    keys = [f"9000-000000/{number:06d}" for number in range(460)]
    truth = pd.DataFrame(
        {
            "yaw": 2.0 * place_N2[:, 0],
            "pitch": place_N2[:, 1],
            "jaw_drop": place_N2.sum(axis=1),
            OPEN_MOUTH: opened,
        },
        index=keys,
    ).astype(float)
    points_NC = (template_L2 + place_N2[:, None]).reshape(460, -1)
    return Faces(image_NHW3, points_NC, truth, np.repeat(["train", "val", "test"], [200, 100, 160]))


def shuffled(faces: Faces) -> Faces:
    """Each face with the labels of another one."""
    order = np.random.default_rng(1).permutation(len(faces.point_NC))
    truth = pd.DataFrame(faces.truth.to_numpy()[order], faces.truth.index, faces.truth.columns)
    return Faces(faces.image_NHW3, faces.point_NC[order], truth, faces.split)


Compared: TypeAlias = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def compared(faces: Faces) -> Compared:
    setting = fit.Setting("test", labels=(50, 200), draws=2)
    return results.run(fit.load_all(["demo", "random:0"]), faces, setting, DEVICE)


def test_labels_are_found_in_features(faces: Faces, compared: Compared) -> None:
    predictions, table, measured = compared
    assert list(measured["model"]) == ["demo", "random:0"]
    assert measured["rankme"].between(1, 100).all()
    assert predictions.groupby(["model", "labels", "draw"]).size().to_dict() == {
        (model, *fit): len(faces.rows("test"))
        for model in ("demo", "random:0")
        for fit in ((50, 0), (50, 1), (200, 0))
    }
    value = table.set_index(["model", "metric", "labels"])["value"]["demo"]
    assert value["open_mouth", 200] > 0.95
    assert value["jaw_drop", 200] > 0.8
    assert value["nme", 200] < value["nme", 50]


def test_shuffled_labels_are_not_found_in_features(faces: Faces, compared: Compared) -> None:
    setting = fit.Setting("val", labels=(200,))
    table = results.run(fit.load_all(["demo"]), shuffled(faces), setting, DEVICE)[1]
    chance = table.set_index("metric")["value"]
    known = compared[1].set_index(["model", "metric", "labels"])["value"]["demo"]
    assert chance["nme"] > 2 * known["nme", 50]
    assert abs(chance["open_mouth"] - 0.5) < 0.15
    assert chance["jaw_drop"] < 0.05


def test_fine_tuning_learns_all_labels(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """From random weights, in a few steps; the predictions have the columns of those from frozen features."""
    monkeypatch.setattr(finetune, "epochs", {40: 1, 200: 4}.get)
    setting = fit.Setting("test", labels=(40, 200), draws=1, finetune=True)
    predictions, table, _ = results.run(
        [fit.Entry("random", 0, fit.load("demo-48", 0))], faces, setting, DEVICE
    )
    frozen = fit.predict(fit.load("demo-48", 0), faces, setting._replace(labels=(40,)), DEVICE)
    assert set(predictions.columns) == {"model", "seed", *frozen.columns}
    value = table.set_index(["metric", "labels"])["value"]
    mean_face = np.tile(faces.point_NC[faces.rows("train")].mean(axis=0), (160, 1))
    chance = fit.nme(mean_face, faces.point_NC[faces.rows("test")]).mean()
    assert value["nme", 200] < chance / 2 < value["nme", 40]
    assert value["open_mouth", 200] > 0.9
    assert value["jaw_drop", 200] > 0.5 > value["jaw_drop", 40]


def test_measures_count_equally_in_fine_tuning_and_unknown_labels_do_not() -> None:
    truth_NO = np.array(
        [[0.0, 0, 10, 1], [2, 2, 30, np.nan], [4, 4, 50, 0]]
    )  # 2 coordinates, yaw, open mouth
    aim = finetune.objective(features=9, grid=3, coordinates=2, truth_NO=truth_NO)
    raw_BO = torch.tensor([[1.0, -1, 2, 0], [0, 0, 0, 7]])
    wanted_BO = torch.from_numpy(truth_NO[[1, 1]]).float()  # the mean face
    # By hand: squares of the coordinates (1 + 1 + 0 + 0) / 4, of yaw (4 + 0) / 2, of the mouth none.
    assert float(aim.loss(raw_BO, wanted_BO)) == pytest.approx((0.5 + 2 + 0) / 3)
    scores = aim.scores(torch.zeros(1, 4)).numpy()
    assert scores == pytest.approx(np.array([[2, 2, 30, 0.5]]))


def test_validation_faces_are_reported_at_the_penalty_of_the_other_half() -> None:
    split = np.repeat(["val", "test"], [4, 2])
    value_LM = np.array([[1.0] * 6, [2.0] * 6])
    loss_LM = np.array([[0.0, 9.0, 0.0, 9.0, 0, 0], [9.0, 0.0, 9.0, 0.0, 0, 0]])
    assert list(fit._chosen(value_LM, loss_LM, split, "val")[:4]) == [2, 1, 2, 1]
    loss_LM[:, 0] = [-9, 0]
    assert list(fit._chosen(value_LM, loss_LM, split, "test")) == [1] * 6


def test_ridge_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    x_ND, y_NO, x_MD = (generator.normal(size=shape) for shape in ((30, 80), (30, 3), (7, 80)))
    energy = np.sum((x_ND - x_ND.mean(axis=0)) ** 2) / len(x_ND)
    for value, found in zip(fit.GRID, fit.ridge(x_ND, y_NO, x_MD), strict=True):
        np.testing.assert_allclose(found, Ridge(energy / value).fit(x_ND, y_NO).predict(x_MD), atol=1e-8)


def test_a_nearly_constant_feature_decides_no_face() -> None:
    x_ND = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    x_ND[:, 0] *= 1e-6
    x_ND[99, 0] = 1.0
    assert np.abs(fit.standardised(x_ND, 90)).max() < 30


def test_r_squared_is_that_of_scikit_learn() -> None:
    truth_N, pred_N = np.random.default_rng(0).normal(size=(2, 50))
    counts = np.random.default_rng(1).integers(0, 4, (3, 50)).astype(float)
    wanted = [r2_score(truth_N, pred_N, sample_weight=weight) for weight in counts]
    np.testing.assert_allclose(metrics.r_squared(pred_N, truth_N, counts), wanted)


def test_differences_are_paired(compared: Compared) -> None:
    value = compared[1].query("labels == 50").set_index(["model", "metric"])
    for metric in ("nme", "yaw", "open_mouth", "jaw_drop"):
        rows = [value.loc[(model, metric)] for model in ("demo", "random:0", "demo - random:0")]
        assert rows[0]["value"] - rows[1]["value"] == pytest.approx(rows[2]["value"])
        assert rows[2]["low"] < rows[2]["value"] < rows[2]["high"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["random:0"], "after the weights"),
        (["demo", "random:x"], "random:<seed>"),
        (["demo", "demo"], "named twice"),
        (["a - b=demo"], "would read as a difference"),
    ],
)
def test_wrong_weights_are_refused(weights: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit.load_all(weights)


def test_one_file_is_no_second_seed(tmp_path: Path) -> None:
    """Under another path its content is the same, and the interval over seeds would have no width."""
    path = tmp_path / "again.safetensors"
    path.symlink_to(released.find("demo").resolve())
    with pytest.raises(ValueError, match="the same weights as another seed of fra"):
        fit.load_all(["fra=demo", f"fra={path}"])
    assert len(fit.load_all(["fra=demo", f"copy={path}"])) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "1,x"], "from 10 up"),
        (["--part", "train"], "'train' is not one of 'val', 'test'"),
        (["--finetune", "--no-standardise"], "leave out --finetune"),
    ],
)
def test_wrong_options_are_refused(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["transfer", "ruler", "demo", *options], env={"COLUMNS": "200"})
    assert done.exit_code
    assert message in f"{done.output}{done.exception}"


def test_photographs_are_framed_like_the_synthetic_faces(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    photos = cross.read_photographs(tmp_path, faces)
    assert photos.image_NHW3.shape == (400, 64, 64, 3)
    assert len(set(photos.person_N)) == 40
    pairs = (photos.point_NC, faces.point_NC[faces.rows("train")])
    means = [part.reshape(len(part), 68, 2).mean(axis=0) for part in pairs]
    eyes_and_mouth = [align.centres(mean) for mean in means]
    size = np.linalg.norm(eyes_and_mouth[1][0] - eyes_and_mouth[1][1])
    assert np.abs(eyes_and_mouth[0].mean(axis=0) - eyes_and_mouth[1].mean(axis=0)).max() < 0.01 * size


def test_the_cross_test_resamples_people(faces: Faces) -> None:
    person_N = np.repeat(["a", "b"], [3, 1])
    predictions = pd.concat(
        pd.DataFrame({"model": model, "seed": 0, "labels": 100, "person": person_N, "nme": error_N})
        for model, error_N in (("x", [1.0, 1, 1, 3]), ("y", [2.0, 2, 2, 4]))
    )
    table = results.table(cross.values(predictions)).set_index("model")
    assert table.loc["x", "value"] == 1.5
    assert tuple(table.loc["x", ["low", "high"]]) == (1.0, 3.0)
    assert tuple(table.loc["x - y", ["value", "low", "high"]]) == (-1.0, -1.0, -1.0)


def test_files_of_one_name_are_seeds() -> None:
    entries = fit.load_all(["demo", "noise=random:0", "noise=random:1"])
    assert [(model, seed) for model, seed, _ in entries] == [("demo", 0), ("noise", 0), ("noise", 1)]


def seeds_of(*of_faces: tuple[float, float]) -> dict[int, metrics.Array]:
    """By seed: the value of all faces, and 20 resamples between two bounds around it."""
    return {
        seed: np.array([value, *np.linspace(value - spread, value + spread, 20)])
        for seed, (value, spread) in enumerate(of_faces)
    }


def test_differences_of_seeds_are_paired_and_have_an_interval_of_their_own() -> None:
    values = {
        ("fra", 100, "nme"): seeds_of((1.0, 0), (2.0, 0), (3.0, 0)),
        ("byol", 100, "nme"): seeds_of((1.5, 0.1), (2.6, 0.1), (3.4, 0.1)),
        ("random", 100, "nme"): seeds_of((9.0, 0.1)),
    }
    table = results.table(values)
    row = table.set_index("model").loc["fra - byol"]
    margin = 4.303 * 0.1 / np.sqrt(3)  # Student's t with two degrees of freedom, deviation 0.1
    assert tuple(row[["value", "seed_low", "seed_high"]]) == pytest.approx(
        (-0.5, -0.5 - margin, -0.5 + margin), abs=1e-3
    )
    assert row["seeds"] == 3
    assert np.isnan(table.set_index("model").loc["fra - random", "seed_low"])
    found = results.beyond_chance(table).set_index("model")["conclusion"]
    assert dict(found) == {"fra - byol": 1, "fra - random": 1}  # less error is better
    values["byol", 100, "nme"] = seeds_of((1.5, 0.1), (2.6, 0.1), (2.9, 0.1))
    assert results.beyond_chance(results.table(values))["conclusion"].iloc[0] == 0, "seeds disagree"


def test_measures_are_correlated_with_better_backbones() -> None:
    models = list("abcd")
    table = pd.DataFrame(
        {
            "model": models * 2,
            "metric": ["nme"] * 4 + ["open_mouth"] * 4,
            "labels": 100,
            "value": [4, 3, 2, 1] * 2,
        }
    )
    measured = pd.DataFrame(
        {
            "model": models,
            "seed": 0,
            "rankme": [1, 2, 3, 4.0],
            "alignment": [2, 1, 4, 3.0],  # lower is better
            "alpha_req": [0.2, 0.5, 1.4, 1.1],  # near 1 is better
        }
    )
    found = results.correlations(measured, table).set_index("metric")
    measures = ["rankme", "alignment", "alpha_req"]
    assert dict(found.loc["nme", measures]) == pytest.approx({"rankme": 1, "alignment": -0.6, "alpha_req": 1})
    assert found.loc["open_mouth", "rankme"] == pytest.approx(-1)
    assert list(found["models"]) == [4, 4]
    assert found.loc["nme", "rankme_low"] == pytest.approx(1)


def test_the_interval_of_a_rank_correlation_covers_the_true_one() -> None:
    low, high = results.spearman_interval(0.5, 28)  # by hand: atanh(0.5) -/+ 1.96 * sqrt(1.125 / 25)
    assert (low, high) == pytest.approx((0.1327, 0.7465), abs=1e-4)
    generator = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman's rho of normal pairs with correlation 0.7
    covered = []
    for _ in range(1000):
        x, y = generator.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 20).T
        low, high = results.spearman_interval(float(stats.spearmanr(x, y).statistic), 20)
        covered.append(low <= truth <= high)
    assert 0.93 < np.mean(covered) < 0.98
    assert all(np.isnan(results.spearman_interval(0.5, 3)))


def test_tables_name_what_differs_beyond_chance(compared: Compared) -> None:
    table = compared[1]
    console = Console(width=200, file=StringIO())
    console.print(ruler_tables.metrics(table))
    console.print(ruler_tables.measures(compared[2]))
    console.print(ruler_tables.correlations(results.correlations(compared[2], table)))
    printed = console.file.getvalue()
    assert all(word in printed for word in ("Landmarks, NME", "200 labels", "RankMe", "random:0"))
    (line,) = ruler_tables.conclusions(results.beyond_chance(table))
    assert line.startswith("demo compared with random:0")


def test_a_forest_plot_shows_differences_in_per_cent_of_the_error() -> None:
    """By hand: of an error, and of 1 − R², where a higher value is a lower error."""
    rows = [
        ("byol", "nme", 0.1, 0.09, 0.11),
        ("byol", "jaw_drop", 0.6, 0.5, 0.7),
        ("fra - byol", "nme", -0.002, -0.003, -0.001),
        ("fra - byol", "jaw_drop", 0.02, -0.01, 0.03),
    ]
    table = pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high"])
    table = table.assign(labels=100, seeds=1, seed_low=np.nan, seed_high=np.nan)
    found = forest.relative(table).set_index("metric")
    assert found.loc["nme", ["value", "low", "high"]].tolist() == pytest.approx([-2, -3, -1])
    assert found.loc["jaw_drop", ["value", "low", "high"]].tolist() == pytest.approx([-5, 2.5, -7.5])
    assert found["conclusion"].to_dict() == {"nme": 1, "jaw_drop": 0}
    drawn = forest.draw(found.reset_index(), {"nme": "Landmarks", "jaw_drop": "Jaw drop"})
    for text in (
        "Landmarks",
        "Jaw drop",
        "100 labels",
        "better beyond chance",
        "Error of fra compared with byol",
    ):
        assert f">{text}" in drawn
    assert "worse" not in drawn


def test_a_forest_plot_of_ambiguous_or_missing_rows_is_refused(tmp_path: Path) -> None:
    stored, other = ROOT / "docs/results/evidence/ruler/continued.csv", tmp_path / "other.csv"
    other.write_text("key\na\n")
    with pytest.raises(ValueError, match="choose some by --where part=VALUE"):
        forest.read(stored)
    with pytest.raises(ValueError, match="no row with part=train"):
        forest.read(stored, ["part=train"])
    with pytest.raises(ValueError, match="they have: regions - image_level"):
        forest.relative(forest.read(stored, ["part=test"]), "a - b")
    with pytest.raises(ValueError, match=r"other.csv: .*results.csv of `fra transfer ruler`"):
        forest.read(other)
    with pytest.raises(FileNotFoundError, match="no such file"):
        forest.read(tmp_path / "none.csv")
