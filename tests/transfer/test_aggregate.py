"""Several pre-trainings as one: means over all their seeds, and no mixing of what was asked differently."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.labelled_set import Set, run
from typer.testing import CliRunner

from fra.transfer.aggregate import pool
from fra.transfer.recompute import differences
from pipelines.cli.main import app


@pytest.fixture(scope="module")
def one(faces: Set, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one")
    run("verification", faces, root / "verification")
    return root


@pytest.fixture
def other(one: Path, tmp_path: Path) -> Path:
    """A pre-training that ranks all pairs the other way round."""
    shutil.copytree(one, tmp_path / "other")
    path = tmp_path / "other/verification/predictions.parquet"
    found = pd.read_parquet(path)
    ours = found["model"] == "pretrained"
    found["score"] = found["score"].where(~ours, -found["score"])
    found.to_parquet(path)
    return tmp_path / "other"


def test_figures_are_means_over_all_seeds(one: Path, other: Path, tmp_path: Path) -> None:
    summary = pool([one, other], tmp_path / "both")["verification"]
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


def test_the_command_prints_a_line_a_model(one: Path, other: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["transfer", "pool", str(one), str(other), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "verification" in done.output
    assert "random" in done.output
    assert (tmp_path / "out/verification/curves/roc.csv").is_file()


def test_what_was_asked_differently_is_not_mixed(one: Path, other: Path, tmp_path: Path) -> None:
    path = other / "verification/predictions.parquet"
    found = pd.read_parquet(path)
    found[found["seed"] < found["seed"].max()].to_parquet(path)
    with pytest.raises(ValueError, match=r"other.*seed 0.*evaluate all pre-trainings in the same way"):
        pool([one, other], tmp_path / "out")
    found[found["key"] != found["key"].iloc[0]].to_parquet(path)
    with pytest.raises(ValueError, match="asks other images"):
        pool([one, other], tmp_path / "out")
    path.unlink()
    with pytest.raises(ValueError, match="missing, though"):
        pool([one, other], tmp_path / "out")
    with pytest.raises(ValueError, match="at least two"):
        pool([one], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no task's predictions"):
        pool([tmp_path, one], tmp_path / "out")
    assert not (tmp_path / "out").exists()
