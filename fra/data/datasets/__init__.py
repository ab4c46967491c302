"""Data sets: from a folder as published to a table of records, one per image."""
