"""The project's folder: its root, paths, locks, permissions, the selected data set, error messages."""
