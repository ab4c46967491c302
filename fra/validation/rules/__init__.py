"""Validation rules: what a data set must satisfy before a network is trained on it."""
