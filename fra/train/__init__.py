"""Pre-training: optimisers, schedules, checkpoints and the loop."""
