"""Operating system: atomic writes, locks, SQLite caches, processes, disk space, retries, paths."""
