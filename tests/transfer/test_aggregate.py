"""Aggregation of several pre-training runs: means over all their seeds, and refusal of runs that differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.labelled_set import Set, run
from typer.testing import CliRunner

from fra.transfer.aggregate import aggregate
from fra.transfer.recompute import differences
from pipelines.cli.main import app


@pytest.fixture(scope="module")
def one(faces: Set, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one")
    run("verification", faces, root / "verification")
    return root


@pytest.fixture
def other(one: Path, tmp_path: Path) -> Path:
    """A pre-training run that ranks all pairs in reverse."""
    shutil.copytree(one, tmp_path / "other")
    path = tmp_path / "other/verification/predictions.parquet"
    found = pd.read_parquet(path)
    ours = found["model"] == "pretrained"
    found["score"] = found["score"].where(~ours, -found["score"])
    found.to_parquet(path)
    return tmp_path / "other"


def test_metrics_are_means_over_all_seeds(one: Path, other: Path, tmp_path: Path) -> None:
    summary = aggregate([one, other], tmp_path / "both")["verification"]
    assert summary["pretrained"]["roc_auc"]["mean"] == pytest.approx(0.5)
    single = pd.read_csv(one / "verification/results.csv")
    both = pd.read_csv(tmp_path / "both/verification/results.csv")
    assert both["seed"].nunique() == 2 * single["seed"].nunique()
    of_random = [
        table[(table["model"] == "random") & (table["metric"] == "roc_auc") & table["seed"].isna()]
        for table in (single, both)
    ]
    assert of_random[0]["value"].item() == pytest.approx(of_random[1]["value"].item())
    assert of_random[0]["low"].item() == pytest.approx(of_random[1]["low"].item())
    assert differences("verification", tmp_path / "both/verification") == []


def test_command_prints_a_line_per_model(one: Path, other: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["transfer", "pool", str(one), str(other), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "verification" in done.output
    assert "random" in done.output
    assert (tmp_path / "out/verification/curves/roc.csv").is_file()


def test_one_run_given_twice_is_refused(one: Path, other: Path, tmp_path: Path) -> None:
    """Its seeds would count as those of two pre-trainings; a copy of the folder is the same run."""
    shutil.copytree(one, tmp_path / "copy")
    for again in (one, one / ".", tmp_path / "copy"):
        with pytest.raises(ValueError, match=r"the same predictions as in .*one.*: give different"):
            aggregate([one, other, again], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_that_were_evaluated_differently_are_refused(one: Path, other: Path, tmp_path: Path) -> None:
    path = other / "verification/predictions.parquet"
    found = pd.read_parquet(path)
    found[found["seed"] < found["seed"].max()].to_parquet(path)
    with pytest.raises(ValueError, match=r"other.*seed 0.*evaluate all pre-training runs in the same way"):
        aggregate([one, other], tmp_path / "out")
    found[found["key"] != found["key"].iloc[0]].to_parquet(path)
    with pytest.raises(ValueError, match="test images differ"):
        aggregate([one, other], tmp_path / "out")
    path.unlink()
    with pytest.raises(ValueError, match="missing, but"):
        aggregate([one, other], tmp_path / "out")
    with pytest.raises(ValueError, match="at least two"):
        aggregate([one], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no predictions of any task"):
        aggregate([tmp_path, one], tmp_path / "out")
    assert not (tmp_path / "out").exists()
