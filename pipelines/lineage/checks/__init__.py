"""The checks of `fra lineage verify`, each a function that yields problems."""
