"""Problem sets: one file each, listed in `registry`; posing, self-test and grading of problems."""
