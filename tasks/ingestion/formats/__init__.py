"""Data formats: instruction files and data sets -> rows."""
