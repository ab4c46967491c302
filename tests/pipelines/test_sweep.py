"""The grid of a parameter sweep."""

from __future__ import annotations

import pytest

from pipelines.flows.sweep import combinations


def test_grid_gives_every_combination() -> None:
    assert combinations(["a=1,2", "b=3"]) == [["a=1", "b=3"], ["a=2", "b=3"]]
    assert len(combinations(["a=1,2", "b=3,4", "c=5,6,7"])) == 12


@pytest.mark.parametrize("entry", ["a", "=1", "a=", "a=1,"])
def test_malformed_entry_is_reported(entry: str) -> None:
    with pytest.raises(ValueError, match=f"'{entry}' is not of the form"):
        combinations([entry])
