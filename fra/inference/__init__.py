"""Use of trained weights: embeddings, search, region heatmaps, export."""
