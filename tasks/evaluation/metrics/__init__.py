"""Metrics: losses, token accuracy, infilling, and paired statistics."""
