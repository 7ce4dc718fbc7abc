"""Forgetting probes: texts that no training touches, of several kinds, listed in `registry`."""
