"""Steppers: ways to run forward and backward of one optimizer step, and how one is chosen."""
