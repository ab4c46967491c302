"""Shared by all tests. Its being here puts this folder on the path: `from parity import official`."""

import hypothesis  # noqa: F401  imported first: after numba has compiled, CPython 3.11 cannot parse its large modules
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread over processes (pytest-xdist), a file stays together, and so do all tests of the one finished chain."""
    for item in items:
        shared = "finished" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("chain" if shared else str(item.path)))
