"""What a training reports: metrics.jsonl, the loss plot, training.json and the summary."""
