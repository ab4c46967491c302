"""Shards: records and images as WebDataset tar files and FFCV betons, with the manifest that lists them."""
