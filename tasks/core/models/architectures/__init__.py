"""The table of model architectures: one file per family, listed in registry.py."""
