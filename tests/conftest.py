"""Shared by all tests. Its being here puts this folder on the path: `from parity import official`."""
