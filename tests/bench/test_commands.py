"""`fra bench … --json`: the last line is one JSON object with `baseline`, `ours` and `ratio`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli.benchmark import bench

NETWORK = ["--backbone", "mini", "--hidden-dim", "32", "--projection-dim", "16"]
SMALL = ["--image-size", "32", "--batch-size", "8", "--rounds", "1"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["step", *NETWORK, *SMALL], marks=pytest.mark.slow),
        pytest.param(["train", *NETWORK, *SMALL, "--count", "16"], marks=pytest.mark.slow),
        pytest.param(["loader", *SMALL, "--count", "16"], marks=pytest.mark.slow),
        ["embed", "--backbone", "mini", *SMALL, "--images", "8"],
        pytest.param(
            ["faces", "--count", "4", "--rounds", "1", "--memory", "4", "--processes", "1"],
            marks=pytest.mark.slow,
        ),
        ["probe", "--images", "100", "--features", "8", "--labels", "2"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("as_json", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_last_line_is_one_json_object_with_the_comparison(command: list[str], as_json: bool) -> None:
    done = CliRunner().invoke(bench, [*command, *(["--json"] if as_json else [])], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    result = json.loads(lines[-1])
    assert result["ratio"] == pytest.approx(result["ours"] / result["baseline"])
    assert result["unit"] in ("images/s", "models/s")
    assert (len(lines) == 1) == as_json


@pytest.mark.parametrize(
    "command", ["busy", "embed", "faces", "loader", "regions", "search", "step", "train"]
)
def test_no_rounds_are_refused(command: str) -> None:
    done = CliRunner().invoke(bench, [command, "--rounds", "0"])
    assert done.exit_code == 2
    assert "--rounds" in done.output
