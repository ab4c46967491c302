"""Benchmarks: each compares this project with what a user would use instead, in one run."""
