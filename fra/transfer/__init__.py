"""Transfer evaluation: heads on frozen features or fine-tuning, metrics, confidence intervals."""
