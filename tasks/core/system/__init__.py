"""The machine: paths, locks, disk space, processes, retries."""
