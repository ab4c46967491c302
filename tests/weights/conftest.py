"""The miniature labelled set as a fixture."""

from support.labelled_set import faces  # noqa: F401
