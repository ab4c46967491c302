"""Costs by size, the exponent with which they grow, and a table of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

SUPERLINEAR = 1.15
"""Exponents above this are marked."""
MEMORY_RISE = 20.0 * 2**20
"""Bytes that memory must rise above that at the smallest size to give an exponent."""


class Cost(NamedTuple):
    """What a command took.

    Attributes:
        wall: Wall seconds.
        cpu: CPU seconds of all its processes.
        memory: Bytes of the largest of its processes at its peak.
    """

    wall: float
    cpu: float
    memory: float


Costs = Mapping[str, Mapping[int, Cost]]
"""Costs by command and size."""


def exponent(values: Mapping[int, float], rise: float) -> float | None:
    """Returns b of cost = fixed cost + a × size^b, where the cost at the smallest size is taken as the fixed one.

    b is the slope of a line through the logarithms of sizes and of costs beyond the fixed one.

    Args:
        values: Cost by size.
        rise: Smallest cost beyond the fixed one that counts; smaller ones are mostly noise.

    Returns:
        None, where fewer than two sizes count.
    """
    smallest = min(values)
    points = [
        (size - smallest, value - values[smallest])
        for size, value in sorted(values.items())
        if value - values[smallest] >= rise and size > smallest
    ]
    if len(points) < 2:
        return None
    size_P, cost_P = np.log(np.array(points)).T
    return float(np.polyfit(size_P, cost_P, 1)[0])


def summarise(costs: Costs, cpu_rise: float) -> list[dict[str, Any]]:
    """Returns a row per command: its costs by size, and the exponents of CPU seconds and memory.

    Args:
        costs: Costs by command and size.
        cpu_rise: CPU seconds that a cost must rise above that at the smallest size to give an exponent.
    """
    return [
        {
            "command": name,
            "costs": {size: cost._asdict() for size, cost in by_size.items()},
            "cpu_exponent": exponent({size: cost.cpu for size, cost in by_size.items()}, cpu_rise),
            "memory_exponent": exponent({size: cost.memory for size, cost in by_size.items()}, MEMORY_RISE),
        }
        for name, by_size in costs.items()
    ]


def markdown(title: str, rows: list[dict[str, Any]]) -> str:
    """Returns a table of CPU seconds, wall seconds and MiB by size, with the exponents; those too large are bold."""
    sizes = sorted({size for row in rows for size in row["costs"]})
    header = [title, *(f"{size:,}: CPU s / s / MiB" for size in sizes), "CPU ∝ nᵇ", "memory ∝ nᵇ"]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for row in rows:
        cells = [_cell(row["costs"].get(size)) for size in sizes]
        grown = [_mark(row[f"{cost}_exponent"], len(row["costs"])) for cost in ("cpu", "memory")]
        lines.append("| " + " | ".join([row["command"], *cells, *grown]) + " |")
    return "\n".join(lines)


def _cell(cost: Mapping[str, float] | None) -> str:
    if cost is None:
        return ""
    return f"{cost['cpu']:.3g} / {cost['wall']:.3g} / {cost['memory'] / 2**20:,.0f}"


def _mark(value: float | None, sizes: int) -> str:
    if value is None:  # of two sizes the smaller one is the fixed cost, and one point has no slope
        return "flat" if sizes > 2 else "needs three sizes"
    return f"**{value:.2f}**" if value > SUPERLINEAR else f"{value:.2f}"
