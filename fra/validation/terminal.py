"""The broken rules as a short table in the terminal."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table

from fra.validation.rules.rule import ACTIONS
from fra.validation.verdict import ValidationResult


def show(result: ValidationResult, stream: TextIO) -> None:
    """Prints one line per broken rule: its action, the number of rows, an example. Prints nothing where all hold."""
    broken = [rule for rule in result.expectations if not rule["success"]]
    if not broken:
        return
    table = Table(title=f"Broken rules: {result.dataset}", title_justify="left")
    for name in ("rule", "action", "rows", "for example"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for rule in sorted(broken, key=lambda rule: list(ACTIONS).index(rule["severity"])):
        example = f"{rule['examples'][0]}: {rule['explanations'][0]}" if rule["examples"] else rule["reason"]
        table.add_row(rule["name"], ACTIONS[rule["severity"]], f"{rule['unexpected_count']:,}", example)
    Console(file=stream, width=None if stream.isatty() else 140, markup=False, highlight=False).print(table)
