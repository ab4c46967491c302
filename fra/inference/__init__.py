"""What people do with weights: embed, search, look at regions, export."""
