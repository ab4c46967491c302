"""What a training run measures about itself, and where it reports it."""
