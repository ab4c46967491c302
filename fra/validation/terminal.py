"""What failed, as a short table in the terminal."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table

from fra.validation.rules.rule import THEN
from fra.validation.verdict import Verdict


def show(verdict: Verdict, stream: TextIO) -> None:
    """One line a rule that does not hold: what it does, how many rows, and an example; nothing where all hold."""
    broken = [rule for rule in verdict.expectations if not rule["success"]]
    if not broken:
        return
    table = Table(title=f"What does not hold: {verdict.dataset}", title_justify="left")
    for name in ("rule", "then", "rows", "for example"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for rule in sorted(broken, key=lambda rule: list(THEN).index(rule["severity"])):
        example = f"{rule['examples'][0]}: {rule['explanations'][0]}" if rule["examples"] else rule["reason"]
        table.add_row(rule["name"], THEN[rule["severity"]], f"{rule['unexpected_count']:,}", example)
    Console(file=stream, width=None if stream.isatty() else 140, markup=False, highlight=False).print(table)
