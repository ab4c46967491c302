from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fra.data.views.config import ViewsConfig
from fra.report.elements import Missing, attempt


def raise_error(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: raise_error(KeyError("no image p00/0")), "no image p00/0"),
        (lambda: raise_error(ValueError("no test image")), "no test image"),
        (lambda: Path("absent.parquet").read_bytes(), "absent.parquet"),
        (lambda: ViewsConfig(hue=3.0), "hue"),
    ],
)
def test_reason_of_a_missing_part_is_the_message_of_its_error(
    make: Callable[[], object], reason: str
) -> None:
    part = attempt(make)
    assert isinstance(part, Missing)
    assert reason in part.reason
    assert not part.reason.startswith("'")
