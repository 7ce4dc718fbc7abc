"""Steppers run forward and backward of one optimizer step; this package picks and sizes one."""
