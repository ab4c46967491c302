"""Tasks: their truths in the manifest, their metrics, and the table that puts them together."""
