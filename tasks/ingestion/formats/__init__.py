"""Data formats of files and data sets: bytes -> records (`files`) -> rows (`rows`)."""
