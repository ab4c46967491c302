"""The fra command: one module per command group."""
