"""Region quality: agreement of a model's heatmaps with facial parts."""
