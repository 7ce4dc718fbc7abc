"""Sources of rows: listing, digests for the cache key, and reading, one module per kind."""
