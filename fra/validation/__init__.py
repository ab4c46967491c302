"""Validation: checks data before a network is trained on them."""
