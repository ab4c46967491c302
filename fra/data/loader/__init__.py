"""Loaders: batches of two crops per image, from FFCV betons or WebDataset shards."""
