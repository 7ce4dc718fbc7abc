"""What the stage `base` measured about a model, and its own head."""
