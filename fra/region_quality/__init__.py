"""Region quality: how well the heatmaps of a model match facial parts."""
