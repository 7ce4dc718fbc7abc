"""Metrics: one file each, listed in `registry`."""
