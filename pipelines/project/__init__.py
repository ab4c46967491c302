"""The project folder: paths, permissions, the chosen data set, error messages."""
