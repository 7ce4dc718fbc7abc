"""Data formats of instruction files and data sets: bytes -> records (`files`) -> rows (`rows`)."""
