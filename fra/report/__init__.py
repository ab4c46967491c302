"""The report: one HTML page made from the artifacts of a run; it opens without a network."""
