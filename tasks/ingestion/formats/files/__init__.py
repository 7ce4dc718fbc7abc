"""File formats: the bytes of a file -> records, one module per format."""
