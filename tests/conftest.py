"""Shared by all tests. Its being here puts this folder on the path: `from parity import official`."""

import hypothesis  # noqa: F401  imported first: after numba has compiled, CPython 3.11 cannot parse its large modules
