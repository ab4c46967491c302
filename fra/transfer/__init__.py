"""What a backbone is worth on tasks: heads on frozen features or fine-tuning, metrics, intervals."""
