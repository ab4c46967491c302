"""Datasets, shards, betons, views and loaders: from a folder of images to batches."""
