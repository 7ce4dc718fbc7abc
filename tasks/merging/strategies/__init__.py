"""Merge strategies: one file per strategy, listed in registry.py."""
