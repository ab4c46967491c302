"""Galleries: embeddings of many images in one file, and search for the nearest."""
