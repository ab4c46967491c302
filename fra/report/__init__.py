"""The report: one HTML page, readable without a network, made from the artifacts of a run."""
