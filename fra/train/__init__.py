"""Pre-training: the loop, one optimiser step, optimisers, schedules and checkpoints."""
