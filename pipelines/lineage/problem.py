"""A problem that `fra lineage verify` found, and how problems are printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LISTED = 8
"""Subjects of one message that are printed; `--json` lists all."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that does not agree: the path or stage, what is wrong, and details that differ between subjects."""

    subject: str
    message: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}" + (f" ({self.detail})" if self.detail else "")


def report(problems: Iterable[Problem], limits: Iterable[str] = ()) -> str:
    """The text that `fra lineage verify` prints: problems by message, what was not checked, and the result last."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.message, []).append(problem)
    lines: list[str] = []
    for message, group in groups.items():
        if len(group) == 1:
            lines.append(str(group[0]))
            continue
        lines.append(f"{message} ({len(group)}):")
        lines += [
            f"  {problem.subject}" + f"  {problem.detail}" * bool(problem.detail)
            for problem in group[:LISTED]
        ]
        if len(group) > LISTED:
            lines.append(f"  and {len(group) - LISTED} more, which --json lists")
    lines += [f"not checked: {limit}" for limit in limits]
    count = sum(map(len, groups.values()))
    result = f"{count} problem{'s' * (count > 1)}" if count else "pass: every hash and record agrees"
    return "\n".join([*lines, result])
