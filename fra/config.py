"""What all configuration dataclasses share: how values are checked, and the types of common ranges.

A configuration class is a frozen pydantic dataclass. Each field declares its type, range and default once, and they
hold wherever a value comes from: params.yaml, an override on the command line, or Python code. A wrong value raises
`pydantic.ValidationError`, a ValueError that names the field.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, ConfigDict

CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
"""No unknown field, no infinite number; the docstring below a field is its description."""


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    low, high = pair
    if low > high:
        raise ValueError("the smaller number must be first")
    return pair


Ascending = AfterValidator(_ascending)
"""Of a pair of numbers: the first is not greater than the second."""

Share = Annotated[float, Ge(0), Le(1)]
"""A share or probability: 0 to 1."""
PositiveShare = Annotated[float, Gt(0), Le(1)]
"""A share that is not 0."""
Seed = Annotated[int, Ge(0)]
"""What a random number generator starts from."""
