"""The table of docs/reference/faults.md: how each stage and command ended under each fault."""

from __future__ import annotations

from collections.abc import Mapping

from support.commands import COMMANDS
from support.harm import FAULTS

BEGIN, END = "<!-- outcomes: written by tests/faults/conftest.py -->\n", "<!-- end of outcomes -->"
NONE = "–"
"""A cell without an outcome: the fault does not apply to the command."""

Outcomes = dict[tuple[str, str], str]
"""Outcome by name of the command and fault."""


def read_outcomes(page: str) -> Outcomes:
    """Returns the outcomes in the table of the page."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    lines = [line.strip("|\n ").split(" | ") for line in table.splitlines()]
    return {
        (command, fault): outcome
        for command, *row in lines[2:]
        for fault, outcome in zip(lines[0][1:], row, strict=True)
        if outcome != NONE
    }


def with_outcomes(page: str, outcomes: Mapping[tuple[str, str], str]) -> str:
    """Returns the page with these outcomes in its table; others stay."""
    known = read_outcomes(page) | outcomes
    rows = [["Stage or command", *FAULTS], ["---"] * (1 + len(FAULTS))]
    rows += [[one.name, *(known.get((one.name, fault), NONE) for fault in FAULTS)] for one in COMMANDS]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{page.partition(BEGIN)[0]}{BEGIN}{table}{END}{page.partition(END)[2]}"
