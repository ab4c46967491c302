"""Benchmarks of training: a step, what regions cost, and pre-training from files."""
