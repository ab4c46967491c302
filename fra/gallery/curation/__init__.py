"""Rules that suggest what to leave out of a data set, or what to keep."""

from typing import Literal

Rule = Literal["duplicates", "outliers", "labels", "clusters", "balanced"]
"""A rule, see `fra.gallery.curation.suggest.curate`."""
