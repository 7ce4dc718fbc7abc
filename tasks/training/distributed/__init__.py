"""Training with several processes, one per GPU."""
