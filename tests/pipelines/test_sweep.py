"""The grid of a parameter sweep."""

from __future__ import annotations

import pytest
from support.workspace import ROOT

from pipelines.flows.sweep import check_parameters, combinations
from pipelines.sections import ParamsError


def test_grid_gives_every_combination() -> None:
    assert combinations(["a=1,2", "b=3"]) == [["a=1", "b=3"], ["a=2", "b=3"]]
    assert len(combinations(["a=1,2", "b=3,4", "c=5,6,7"])) == 12


@pytest.mark.parametrize("entry", ["a", "=1", "a=", "a=1,"])
def test_malformed_entry_is_reported(entry: str) -> None:
    with pytest.raises(ValueError, match=f"'{entry}' is not of the form"):
        combinations([entry])


@pytest.mark.parametrize("grid", ["train.lr=0.1,-5", "train.speed=1", "objective=fra,absent"])
def test_every_combination_is_checked(grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DVC composes the parameters: value out of range, unknown parameter, unknown group."""
    monkeypatch.chdir(ROOT)
    check_parameters(combinations(["train.lr=0.1,0.2", "objective=fra,byol"]))
    with pytest.raises(ParamsError, match=grid.partition("=")[0]):
        check_parameters(combinations([grid]))
