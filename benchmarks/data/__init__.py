"""Benchmarks of the data stages, the sources of the numbers in benchmarks/README.md."""
