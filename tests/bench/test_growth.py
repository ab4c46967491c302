"""Exponents of growth, and the table of costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fra.bench.growth import rows
from fra.bench.growth.commands import measure_commands, run
from fra.bench.growth.table import Cost, exponent, markdown, summarise
from pipelines.cli.benchmark import bench


def test_exponent_is_that_of_the_cost_beyond_the_fixed_one() -> None:
    sizes = (0, 1000, 10_000, 100_000)
    assert exponent({size: 5 + 1e-3 * size for size in sizes}, 0.5) == pytest.approx(1)
    assert exponent({size: 5 + 1e-6 * size**2 for size in sizes}, 0.5) == pytest.approx(2)
    assert exponent({size: 5 + 1e-9 * size for size in sizes}, 0.5) is None


def test_growth_beyond_linear_is_marked() -> None:
    costs = {
        "linear": {size: Cost(1, 1 + size, 1e6 * size) for size in (1, 100, 10_000)},
        "quadratic": {size: Cost(1, 1 + size**2, 1e6) for size in (1, 100, 10_000)},
    }
    lines = markdown("Rows", summarise(costs, 0.5)).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].endswith("| 1.00 | 1.00 |")
    assert lines[3].endswith("| **2.00** | flat |")
    two = {name: dict(list(by_size.items())[:2]) for name, by_size in costs.items()}
    assert markdown("Rows", summarise(two, 0.5)).endswith("| needs three sizes | needs three sizes |")


def test_cost_of_a_command_and_its_output_if_it_fails(tmp_path: Path) -> None:
    assert 0 < run(["sh", "-c", "true"], tmp_path).memory < 30 * 2**20  # not that of this process
    with pytest.raises(RuntimeError, match="exit code 3:\nno such thing"):
        run(["sh", "-c", "echo no such thing; exit 3"], tmp_path)


@pytest.mark.parametrize("name", rows.WORKS)
def test_work_on_rows_runs(name: str, tmp_path: Path) -> None:
    assert list(rows.WORKS[name](100, tmp_path)()) == [100]


@pytest.mark.parametrize("sizes", ["100", "100,", "5,5", "a,100", "0,1"])
def test_unusable_sizes_are_refused(sizes: str) -> None:
    done = CliRunner().invoke(bench, ["growth", "--images", "", "--rows", sizes])
    assert done.exit_code == 2
    assert "use two or more different numbers" in done.output.replace("\n", " ")


def test_an_unknown_stage_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stage or command dvc repro ingset; there are dvc repro ingest,"):
        measure_commands(tmp_path, [1, 2], ["dvc repro ingset"])


@pytest.mark.slow
def test_table_of_rows() -> None:
    done = CliRunner().invoke(bench, ["growth", "--images", "", "--rows", "100,200"], catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["command"] for row in found["rows"]] == list(rows.WORKS)


@pytest.mark.slow
def test_table_of_stages_and_commands() -> None:
    done = CliRunner().invoke(bench, ["growth", "--images", "60,120", "--rows", ""], catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {row["command"] for row in found["images"]} >= {
        "dvc repro shard",
        "fra embed",
        "fra lineage verify",
    }
