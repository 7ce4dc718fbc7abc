"""What a plan states about the training and the base model: memory, duration, notes."""
