"""The FRA method: backbone, region discovery, the two networks and their losses."""
