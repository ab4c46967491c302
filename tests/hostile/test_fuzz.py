"""Readers of files of unknown origin read or refuse damaged files, and raise nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
TOKENS = (
    b"nan",
    b"-1",
    b"1e999",
    b"\0",
    b"\xff",
    b"9" * 40,
    b"../",
    b"/",
    b"\n",
    b",",
    b" ",
    b'"',
    b"{",
    b"}",
    b"0",
)
"""What often breaks annotation files."""


@cache
def seeds(name: str) -> list[bytes]:
    """The valid inputs of a target, made once, as some contain the time."""
    return TARGETS[name].seeds()


def splice(data: st.DataObject, content: bytes) -> bytes:
    """Changes, removes, inserts or repeats bytes in up to four places."""
    for _ in range(data.draw(st.integers(1, 4))):
        start, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 16))
        new = data.draw(
            st.sampled_from(TOKENS) | st.binary(max_size=16) | st.just(content[start : start + 200] * 2)
        )
        content = content[:start] + new + content[start + length :]
    return content


@pytest.mark.parametrize("name", TARGETS)
def test_valid_input_is_read(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(suppress_health_check=list(HealthCheck), deadline=None)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(data=st.data())
def test_damaged_input_is_read_or_refused(name: str, data: st.DataObject) -> None:
    TARGETS[name].run(splice(data, data.draw(st.sampled_from(seeds(name)))))


@pytest.mark.parametrize(
    "path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_an_input_that_once_broke_a_reader_is_read_or_refused(path: Path) -> None:
    TARGETS[path.parent.name].run(path.read_bytes())
