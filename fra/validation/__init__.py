"""What data must be before a network may learn from it."""
