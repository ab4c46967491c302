"""Rules that suggest what to leave out of a data set, or what to keep."""
