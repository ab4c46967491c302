"""The FRA method (arXiv 2403.02138): backbone, region discovery, the two networks and their losses."""
